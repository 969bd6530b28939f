"""The images that ``mrcnn-jax predict_many`` is given: a folder, a list of paths and URIs, or Parquet files.

An entry names an image: its path relative to ``Inputs.base``, an absolute path or a URI; or, for an image
whose bytes lie in a Parquet file, that file's path and the row.
"""

import bisect
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mrcnn_jax.inference.files import describe_passed_over
from mrcnn_jax.many_images.rows import as_text

PARQUET = ".parquet"
_COLUMNS = ("image", "uri", "url", "path", "file_name")  # taken without --column, if a file has just one
_BYTES = "bytes"  # the field of Hugging Face's image columns that has the file's bytes

Entry = str | list[Any]  # a name, or [Parquet file, row]
_Key = tuple[int, int]  # of a folder: its device and inode


@dataclass
class Inputs:
    """The images at a path: iterate over it for their entries, in an order that depends on names alone.

    A folder stands for the images in it and its subfolders, by their suffixes; hidden files and folders are
    left out, as are folders below it that may not be read. If it has Parquet files and no images directly
    inside it, it stands for their rows. Another file than a Parquet file is read as a list: one path or URI a
    line; relative paths begin at its folder.

    Args:
        path: the folder or file.
        suffixes: those of images, in lower case.
        column: the column of Parquet files that has the names, or the bytes, of images.

    Iterating raises ValueError, naming the file and the rule, for a path that is missing, has no images, or
    is not a readable list or Parquet file.
    """

    path: Path
    suffixes: Sequence[str]
    column: str | None = None
    passed_over: Counter[str] = field(default_factory=Counter)  # files in folders, by suffix
    unreadable: list[str] = field(default_factory=list)  # folders
    repeated: list[str] = field(default_factory=list)  # links to folders that other links have led to

    @property
    def base(self) -> Path:
        """The absolute path of the folder at which relative names begin."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder.resolve()

    def __iter__(self) -> Iterator[Entry]:
        self.passed_over.clear()
        self.unreadable.clear()
        self.repeated.clear()
        if not self.path.exists():
            raise ValueError(f"{self.path}: no such file or folder")
        entries = self._entries()
        first = next(entries, None)
        if first is None:
            raise ValueError(f"{self.path}: {self._what_is_missing()}")
        yield first
        yield from entries

    def describe_passed_over(self) -> str:
        """What was left out of the folders in the last iteration, in a line or two; "" if nothing was."""
        lines = [describe_passed_over(self.passed_over)]
        for folders, which in (
            (self.unreadable, "without permission to read them"),
            (self.repeated, "that links had led to before"),
        ):
            if folders:
                number = "1 folder" if len(folders) == 1 else f"{len(folders)} folders"
                lines.append(f"passed over {number} {which}, such as {as_text(folders[0])}")
        return "\n".join(filter(None, lines))

    def _entries(self) -> Iterator[Entry]:
        tables = self._parquet_files()
        if self.column is not None and not tables:
            raise ValueError(f"--column={self.column}: {self.path} is not a Parquet file, nor has it any")
        if tables:
            for table in tables:
                yield from _rows_of(table, self.column)
        elif self.path.is_dir():
            yield from self._walk(self.path, "", frozenset(), set())
        else:
            yield from _lines_of(self.path)

    def _parquet_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path] if self.path.suffix.lower() == PARQUET else []
        names = sorted(entry.name for entry in os.scandir(self.path) if not entry.name.startswith("."))
        if any(name.lower().endswith(tuple(self.suffixes)) for name in names):
            return []
        return [self.path / name for name in names if name.lower().endswith(PARQUET)]

    def _walk(self, folder: Path, prefix: str, above: frozenset[_Key], linked: set[_Key]) -> Iterator[str]:
        """The images of a folder, then those of its subfolders.

        Links are followed, but never in a circle to a folder ``above``, and only once to the same folder:
        else a few of them in each other's folders would give more paths than there are files.
        """
        try:
            status = folder.stat()
            if (key := (status.st_dev, status.st_ino)) in above:
                return
            if prefix and folder.is_symlink():
                if key in linked:
                    self.repeated.append(prefix)
                    return
                linked.add(key)
            images, folders = self._split(folder)
        except PermissionError:
            if not prefix:
                raise
            self.unreadable.append(prefix)
            return
        for name in images:
            yield prefix + name
        for name in folders:
            yield from self._walk(folder / name, f"{prefix}{name}/", above | {key}, linked)

    def _split(self, folder: Path) -> tuple[list[str], list[str]]:
        """The names of the images and of the subfolders in a folder; counts other files."""
        images, folders = [], []  # names alone: a folder may have millions
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                suffix = os.path.splitext(entry.name)[1].lower()
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError:  # a link that cannot be followed
                    is_folder, is_file = False, True
                if is_folder:
                    folders.append(entry.name)
                elif suffix in self.suffixes:
                    images.append(entry.name)
                elif is_file:
                    self.passed_over[suffix or "without suffix"] += 1
        return sorted(images), sorted(folders)

    def _what_is_missing(self) -> str:
        if self.path.is_dir():
            return f"no images in this folder or below it; images end in {', '.join(self.suffixes)}"
        return "there are no images in it"


def name_of(entry: Entry) -> str:
    """What rows and messages call the image: its path or URI, or ``photos.parquet#12``."""
    return entry if isinstance(entry, str) else f"{entry[0]}#{entry[1]}"


def _lines_of(path: Path) -> Iterator[str]:
    # As file names are, lines may be in no UTF-8.
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if "\0" in line:
                raise ValueError(
                    f"{path}: line {number} has a null byte; a list of images is a text with one path or "
                    "URI a line"
                )
            if name := line.strip():
                yield name


def _rows_of(path: Path, column: str | None) -> Iterator[Entry]:
    """The entries of a Parquet file; only names are read, not bytes."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            name, has_bytes = _choose_column(file.schema_arrow, column)
            if has_bytes:
                yield from ([path.name, row] for row in range(file.metadata.num_rows))
                return
            row = 0
            for batch in file.iter_batches(columns=[name]):
                for value in batch.column(0).to_pylist():
                    if not value:
                        raise ValueError(f"column {name!r} has no name in row {row} (from 0)")
                    yield value
                    row += 1
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: {error}") from error


def _choose_column(schema: pyarrow.Schema, wanted: str | None) -> tuple[str, bool]:
    """The column with images, and whether it has their bytes rather than names."""
    if wanted is not None and wanted not in schema.names:
        raise ValueError(f"there is no column {wanted!r}; there are {', '.join(schema.names)}")
    fitting = [name for name in schema.names if name in _COLUMNS] if wanted is None else [wanted]
    if len(fitting) != 1:
        raise ValueError(
            f"--column must say which column has the images' paths, URIs or bytes; there are "
            f"{', '.join(schema.names)}"
        )
    kind = schema.field(fitting[0]).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index(_BYTES) >= 0:
        kind = kind.field(_BYTES).type
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return fitting[0], True
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return fitting[0], False
    raise ValueError(f"column {fitting[0]!r} is {kind}; it must have strings, bytes or structs with {_BYTES}")


class ParquetBytes:
    """Reads the bytes of images in Parquet files, a row group at a time; threads take turns.

    Args:
        base: the folder of the files.
        column: as of ``Inputs``.
    """

    def __init__(self, base: Path, column: str | None) -> None:
        self._base, self._column = base, column
        self._lock = threading.Lock()
        self._starts: dict[str, list[int]] = {}  # the first row of each group, by file
        self._groups: dict[tuple[str, int], pyarrow.ChunkedArray] = {}

    def read(self, name: str, row: int) -> bytes:
        """The bytes in a row; raises ValueError, naming file and row, if there are none."""
        try:
            with self._lock:
                value = self._value(name, row)
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{name}#{row}: cannot be read: {error}") from error
        if isinstance(value, dict):
            value = value[_BYTES]
        if value is None:
            raise ValueError(f"{name}#{row}: cannot be read: the row has no bytes")
        return value

    def _value(self, name: str, row: int) -> Any:
        if name not in self._starts:
            metadata = pyarrow.parquet.read_metadata(self._base / name)
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._starts = {name: [0, *itertools.accumulate(counts)]}
        group = bisect.bisect_right(self._starts[name], row) - 1
        if (name, group) not in self._groups:
            if len(self._groups) == 2:  # images on both sides of a border may be read at once
                self._groups.pop(next(iter(self._groups)))
            with pyarrow.parquet.ParquetFile(self._base / name) as file:
                column, _ = _choose_column(file.schema_arrow, self._column)
                self._groups[name, group] = file.read_row_group(group, columns=[column]).column(0)
        return self._groups[name, group][row - self._starts[name][group]].as_py()
