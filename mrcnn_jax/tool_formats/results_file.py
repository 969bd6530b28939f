"""Reads a COCO results list image by image, however long it is."""

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn_jax.data import fields
from mrcnn_jax.tool_formats.keypoints import count_keypoints

_CHUNK = 1 << 20  # bytes that are read at a time
_LARGEST_ENTRY = 1 << 26  # bytes; an object's RLE takes some hundreds, in the largest images a few million
_SPACE = re.compile(r"[ \t\n\r]*")
_MARK = "\xef\xbb\xbf"  # UTF-8's byte order mark


class ResultsFile:
    """The entries of a COCO results list, by image. In memory are 24 bytes for each, never the entries.

    Args:
        path: The file, which is read once from end to end. It must not change while this object is used.

    Raises ValueError, naming the file, if it is not JSON in UTF-8 or not a list of objects, if an
    ``image_id`` or ``category_id`` is not an integer, or if a category has several names or numbers of
    keypoints. Raises OSError if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.categories: dict[int, str | None] = {}  # names by id; None if no entry has a "category"
        self.keypoints: dict[int, int] = {}  # how many an object has, by category id; none without any
        ids, starts, ends = array("q"), array("q"), array("q")
        for start, end, entry in _scan(path):
            where = f"{path}: [{len(ids)}]"
            ids.append(fields.integer(entry, "image_id", where))
            starts.append(start)
            ends.append(end)
            category = fields.integer(entry, "category_id", where)
            known = self.categories.setdefault(category, None)
            if "category" in entry:
                name = fields.text(entry, "category", where)
                if known not in (None, name):
                    raise ValueError(
                        f"{where}: category_id {category} is called {name!r} here, {known!r} before"
                    )
                self.categories[category] = name
            try:
                count = count_keypoints(entry)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            if count and count != (before := self.keypoints.setdefault(category, count)):
                raise ValueError(
                    f"{where}: has {count} keypoints; category_id {category} has {before} before"
                )
        self._starts, self._ends = np.array(starts, np.int64), np.array(ends, np.int64)
        self._order = np.argsort(np.array(ids, np.int64), kind="stable")
        found, first, counts = np.unique(np.array(ids, np.int64), return_index=True, return_counts=True)
        places = zip(found.tolist(), (np.cumsum(counts) - counts).tolist(), counts.tolist(), strict=True)
        self._places = {image: (place, count) for image, place, count in places}
        self.image_ids: list[int] = found[np.argsort(first)].tolist()  # in the order of the file

    def entries(self, image_id: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each entry of an image, in file order, after its place in the file, for messages."""
        place, count = self._places.get(image_id, (0, 0))
        with self.path.open("rb") as file:
            for number in self._order[place : place + count].tolist():
                file.seek(self._starts[number])
                data = file.read(self._ends[number] - self._starts[number])
                yield f"{self.path}: [{number}]", _from_utf8(data)


def _scan(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The byte offsets of each entry's start and end, and the entry."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    with path.open("rb") as file:
        text = _Text(file)
        try:
            if (first := text.peek()) != "[":
                what = {"": "the file is empty", "{": "it holds an object, like a COCO dataset"}
                raise ValueError(f"must be a COCO results list; {what.get(first, 'it holds none')}")
            text.skip()
            while text.peek() != "]":
                yield text.entry()
                if text.peek() not in (",", "]"):
                    raise ValueError(f"not valid JSON at byte {text.offset}: a comma or ] is missing")
                if text.peek() == ",":
                    text.skip()
            text.skip()
            if text.peek():
                raise ValueError(f"not valid JSON: the list ends before byte {text.offset}")
        except RecursionError as error:
            raise ValueError(f"{path}: not valid JSON: nested too deeply") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class _Text:
    """A window on a JSON file. It is read as Latin-1, so that characters are counted as bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._text = file.read(_CHUNK).decode("latin-1")
        self._start = 0  # offset of the window
        self._at = len(_MARK) if self._text.startswith(_MARK) else 0
        self._decoder = json.JSONDecoder()

    @property
    def offset(self) -> int:
        """Where in the file the next character is, in bytes."""
        return self._start + self._at

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # it matches the empty text
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def skip(self) -> None:
        """Leaves out the character that ``peek`` returned."""
        self._at += 1

    def entry(self) -> tuple[int, int, dict[str, Any]]:
        """The object that begins here, after the offsets of its start and end."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                break
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LARGEST_ENTRY:
                    raise ValueError(f"the entry at byte {self.offset} has more than 64 MiB") from error
                place = self._start + error.pos  # reading on moves the window
                if not self._read():
                    raise ValueError(f"not valid JSON at byte {place}: {error.msg}") from error
        if not isinstance(value, dict):
            raise fields.error("", f"the entry at byte {self.offset}", "an object", value)
        source, start = self._text[self._at : end], self.offset
        self._at = end
        return start, self.offset, value if source.isascii() else _from_utf8(source.encode("latin-1"))

    def _read(self) -> bool:
        """Moves the window on, keeping what is ahead, and doubling it if that is long; False at the end."""
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._start += self._at
        self._text, self._at = self._text[self._at :] + data.decode("latin-1"), 0
        return bool(data)


def _from_utf8(data: bytes) -> dict[str, Any]:
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error
