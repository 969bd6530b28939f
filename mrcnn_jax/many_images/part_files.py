"""Writes and reads the files of rows, a file for each shard; they appear whole or not at all."""

import itertools
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet

from mrcnn_jax.json_files import dumps
from mrcnn_jax.many_images.rows import FIELDS, Row, schema

FORMATS = ("parquet", "jsonl")
UNFINISHED = ".tmp"
_GROUP = 100  # rows that are in memory at a time, and in a row group; a row may have 100 masks


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """The path of a temporary file beside ``path``, which it becomes, or replaces, if the block succeeds.

    Unlike ``json_files.replacing``, processes of several machines may write the same file at the same time,
    and a machine that loses its power leaves no part of one.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes a file of rows in the format of its suffix, ``.parquet`` or ``.jsonl``.

    Equal rows make equal files. Only some rows are in memory at a time.
    """
    with appearing(path) as unfinished:
        if path.suffix == ".jsonl":
            with unfinished.open("w", encoding="utf-8") as file:
                file.writelines(f"{dumps(row)}\n" for row in rows)
        else:
            with pyarrow.parquet.ParquetWriter(unfinished, schema(), compression="zstd") as file:
                remaining = iter(rows)
                while group := list(itertools.islice(remaining, _GROUP)):
                    file.write_table(pyarrow.Table.from_pylist(group, schema()))


def read_rows(path: Path, fields: tuple[str, ...] = FIELDS) -> Iterator[Row]:
    """Yields the rows of a file, or some of their fields; Parquet reads no others from the disk."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield {field: row[field] for field in fields}
        return
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_GROUP, columns=list(fields)):
            yield from batch.to_pylist()
