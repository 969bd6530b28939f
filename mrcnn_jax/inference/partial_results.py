"""Keeps the results of ``mrcnn-jax predict`` on disk until all images are done: a killed run can go on.

They are in a file of JSON lines. The first says what they were made with, as ``{"made_with": {...}}``; every
other line holds the results of one image (``ImageResults``).
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NotRequired, TypedDict, cast

from mrcnn_jax.file_locks import open_alone

_ADVICE = "choose another --output, or remove the file to start anew"


class Found(TypedDict):
    """What was found in an image."""

    size: list[int]  # height and width of the image
    drawn: int  # number of objects of at least the score threshold
    objects: list[dict[str, Any]]  # entries of a COCO results list; their image ids are assigned at the end
    annotations: NotRequired[list[dict[str, Any]]]  # of a COCO dataset, without ids


class ImageResults(Found):
    """What was found in an image, and what that belongs to."""

    file: str  # absolute path
    state: list[int]  # the file's modification time in ns and its size in bytes
    picture: str | None  # file name of the picture with the objects; None if none was to be written


class PartialResults:
    """Results of images, appended to a file one by one and read back in any order.

    It is a context manager, which has the file for itself (``file_locks``) until the block is left.

    Args:
        path: The file; it and its folder are created with the first results. An incomplete last line is
            dropped.
        made_with: JSON-serialisable values on which the results depend, by name.
        images: The image files.
        pictures: The path of each one's picture; None if none are to be written.

    Raises ValueError if ``path`` holds results that were made with other values or are of other images,
    because they would be lost, or if it is not such a file; BlockingIOError if another run is writing it.
    """

    def __init__(
        self,
        path: Path,
        made_with: Mapping[str, Any],
        images: Sequence[Path],
        pictures: Sequence[Path] | None,
    ) -> None:
        self.path = path
        self._made_with = json.loads(json.dumps(made_with))
        files = [str(image.absolute()) for image in images]
        names = [None] * len(files) if pictures is None else [picture.name for picture in pictures]
        self._pictures = dict(zip(files, names, strict=True))
        self._states = {file: _state(file) for file in files}
        self._lines: dict[str, int] = {}  # offset of the line of each image that is done
        self._end = 0  # offset after the last complete line that was found
        self._begun = False  # whether the file is ready to be appended to
        self._file: IO[bytes] | None = None
        if path.exists():
            self._file = open_alone(path)
            try:
                self._find_lines()
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def is_done(self, image: Path) -> bool:
        """Whether the file has the image's results, and the image has not changed since."""
        return str(image.absolute()) in self._lines

    def append(self, image: Path, found: Found) -> None:
        """Writes the results of an image: killing the process after this does not lose them.

        Raises BlockingIOError, at the first image, if another run has begun the file meanwhile.
        """
        file = str(image.absolute())
        results = ImageResults(**found, file=file, state=self._states[file], picture=self._pictures[file])
        lines = self._begin()
        line = _line(results)
        lines.write(line)
        lines.flush()
        self._lines[file] = lines.tell() - len(line)

    def read(self, images: Sequence[Path]) -> Iterator[tuple[int, ImageResults]]:
        """Yields the index and the results of each of ``images`` that is done, in the order of ``images``.

        Raises ValueError if something else has written to the file.
        """
        if not self._lines:
            return
        with self.path.open("rb") as file:
            for index, image in enumerate(images):
                if self.is_done(image):
                    name = str(image.absolute())
                    file.seek(self._lines[name])
                    results = _parsed(file.readline())
                    if results.get("file") != name:
                        raise ValueError(
                            f"{self.path}: another program has changed the results of {name}; {_ADVICE}"
                        )
                    yield index, cast(ImageResults, results)

    def remove(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)

    def _begin(self) -> IO[bytes]:
        """The file, to be appended to, with what is to be kept: its complete lines, or the first one if no
        image is done."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = open_alone(self.path)
            if lines.tell():
                lines.close()
                problem = "another run has begun this file meanwhile; start again to go on with it"
                raise OSError(errno.EWOULDBLOCK, problem, str(self.path))
            self._file = lines
        if not self._begun:
            self._file.truncate(self._end if self._lines else 0)
            self._file.seek(0, os.SEEK_END)
            if not self._lines:
                self._file.write(_line({"made_with": self._made_with}))
            self._begun = True
        return self._file

    def _find_lines(self) -> None:
        """Finds the lines of the images that are done."""
        header = None
        others = []  # images that are not among the given ones
        count = 0
        for start, end, content in _read_lines(self.path):
            self._end = end
            if header is None:
                header = content.get("made_with", {})
                continue
            count += 1
            file = content["file"]
            if file not in self._states:
                others.append(file)
            elif (content["state"], content["picture"]) == (self._states[file], self._pictures[file]):
                self._lines[file] = start
        what = f"{self.path} has the results of {count} images from an interrupted run"
        if count and (lines := describe_differences(self._made_with, header or {})):
            raise ValueError(
                f"{what} with other settings:{lines}\nuse those settings to go on with it, or {_ADVICE}"
            )
        if others:
            raise ValueError(
                f"{what}, {len(others)} of which are not given now, such as {others[0]}\n"
                f"name the same images to go on with it, or {_ADVICE}"
            )


def describe_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """A line for each name whose JSON-serialisable values differ; empty if there is none."""
    here = json.loads(json.dumps(here))
    return "".join(
        f"\n  {name}: {here.get(name)!r} here, {there.get(name)!r} there"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    )


def _state(file: str) -> list[int]:
    """What changes when a file is written; empty if there is no such file."""
    try:
        found = Path(file).stat()
    except OSError:  # reading the image will report it
        return []
    return [found.st_mtime_ns, found.st_size]


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The object that a line holds; empty if it holds none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields each complete line's start, end and content; raises ValueError for another kind of file."""
    end = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):  # the process was killed while it wrote this
                return
            start, end = end, end + len(line)
            content = _parsed(line)
            if ("made_with" if number == 0 else "file") not in content:
                raise ValueError(
                    f"{path}: line {number + 1} is not of an interrupted run's results; {_ADVICE}"
                )
            yield start, end, content
