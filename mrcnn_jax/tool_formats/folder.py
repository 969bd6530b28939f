"""A folder that files are added to, all of them or none, and never over others."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO


class OutputFolder:
    """Collects files beside their places in ``path``; see ``output_folder``."""

    def __init__(self, path: Path, unfinished: Path) -> None:
        self.path = path
        self._unfinished = unfinished

    def open(self, name: str) -> TextIO:
        """Opens a new text file, in UTF-8, at ``name`` with "/" in the folder.

        Bytes of file names that are not UTF-8 are written as they are.
        Raises ValueError for a name that leads out of the folder, or of which there is a file.
        """
        return self._place(name).open("x", encoding="utf-8", errors="surrogateescape", newline="\n")

    def open_bytes(self, name: str) -> BinaryIO:
        """Opens a new binary file, likewise."""
        return self._place(name).open("xb")

    def _place(self, name: str) -> Path:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError(f"{name!r} is not a path inside the output folder")
        self._check_free(path)
        place = self._unfinished / path
        if os.path.lexists(place):
            raise ValueError(f"{self.path / path}: two images would be written to this file; rename one")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _check_free(self, path: PurePosixPath) -> None:
        if os.path.lexists(self.path / path):
            raise ValueError(f"{self.path / path}: exists; it is not overwritten")

    def _finish(self) -> None:
        """Moves the files to their places, after checking that all of these are free; all of them or none."""
        files = [Path(folder, name) for folder, _, names in os.walk(self._unfinished) for name in names]
        places = [file.relative_to(self._unfinished) for file in files]
        for place in places:
            self._check_free(PurePosixPath(place))
        moved: list[Path] = []
        try:
            for file, place in zip(files, places, strict=True):
                (self.path / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, self.path / place)  # a folder may be a link to another disk
                moved.append(self.path / place)
        except BaseException:
            for place in moved:
                place.unlink()
            raise


@contextmanager
def output_folder(path: Path) -> Iterator[OutputFolder]:
    """The folder at ``path``, which is made if needed, to write files into.

    They are there when the block ends; if it raises an exception, none is. Raises ValueError if there is a
    file at ``path`` or no folder that it could be made in, and OSError if it cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: is not a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path))
    try:
        folder = OutputFolder(path, unfinished)
        yield folder
        folder._finish()
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new and not any(path.iterdir()):
            path.rmdir()
        raise
    shutil.rmtree(unfinished)
