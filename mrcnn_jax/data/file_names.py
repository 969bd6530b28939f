"""Finds the image files that an annotation file names, including names that another system has changed."""

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mrcnn_jax.data import fields
from mrcnn_jax.data.findings import printable


class ImageFolder:
    """The files of an image folder, by the names that COCO's image entries give them.

    Each folder is listed once, which is cheaper than a look-up of every file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listings: dict[Path, set[str]] = {}
        self._similar_in: dict[Path, dict[str, str]] = {}

    def find(self, file_name: str) -> Path:
        """The path of the file, inside the folder; if there is no such file, the path where it would be.

        A name without a file of exactly that name is tried in other spellings: with "/" for the "\\\\" of
        Windows, without spaces around it, and in Unicode's composed (NFC) and decomposed (NFD) form, as macOS
        and other systems write the same name. An absolute name must lie inside the folder.

        Raises ValueError for a name that leads out of the folder.
        """
        exact = self._inside(file_name)
        if exact and self.has(self._folder / exact):
            return self._folder / exact
        names = [name for spelling in _spellings(file_name) if (name := self._inside(spelling))]
        if not names:
            similar = self._similar(_last_part(file_name), self._folder)
            hint = f"; the image folder itself has {_escaped(similar)}" if similar else ""
            error = fields.error("", "file_name", "a path inside the image folder", file_name)
            raise ValueError(f"{error}{hint}")
        paths = list(dict.fromkeys(self._folder / name for name in names))
        found = [path for path in paths if self.has(path)]
        return found[0] if len(found) == 1 else paths[0]

    def find_any(self, names: Sequence[str]) -> tuple[str, Path]:
        """The first of ``names`` with a file, and its path; if none has, the first. Raises as ``find``."""
        for name in names:
            if self.has(path := self.find(name)):
                return name, path
        return names[0], self.find(names[0])

    def has(self, path: Path) -> bool:
        """Whether there is a file at a path from ``find``."""
        return path.name in self._names_in(path.parent)

    def missing(self, path: Path) -> str:
        """Says that there is no file at ``path``, and which one has a similar name."""
        if similar := self._similar(path.name, path.parent):
            return f"there is no such file; the folder has {_escaped(similar)}, not {_escaped(path.name)}"
        if similar := self._similar(_last_part(path.name), self._folder):
            return f"there is no such file; the image folder itself has {_escaped(similar)}"
        return "there is no such file"

    def _similar(self, name: str, folder: Path) -> str:
        """The name of a file in ``folder`` that ``name`` may mean; "" if there is none."""
        similar = self._similar_names(folder)
        return next((similar[key] for key in _keys(name) if key in similar), "")

    def _similar_names(self, folder: Path) -> dict[str, str]:
        """The names in a folder by each of their ``_keys``; the first of equals."""
        if folder not in self._similar_in:
            found: dict[str, str] = {}
            for name in sorted(self._names_in(folder)):
                for key in _keys(name):
                    found.setdefault(key, name)
            self._similar_in[folder] = found
        return self._similar_in[folder]

    def _inside(self, name: str) -> str:
        """The name relative to the folder; "" if it leads out of the folder or names no file."""
        path = PurePosixPath(name)
        if path.is_absolute():
            for folder in (self._folder.absolute(), self._folder.resolve()):
                if path.is_relative_to(folder):
                    path = path.relative_to(folder)
                    break
            else:
                return ""
        return "" if ".." in path.parts or not path.name else str(path)

    def _names_in(self, folder: Path) -> set[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = set(os.listdir(folder))
            except (OSError, ValueError):  # ValueError: not a legal file name
                self._listings[folder] = set()
        return self._listings[folder]


def _spellings(name: str) -> Iterator[str]:
    """The name itself, then the same in other spellings."""
    for slashes in (name, name.replace("\\", "/")):
        for stripped in (slashes, slashes.strip()):
            yield stripped
            yield unicodedata.normalize("NFC", stripped)
            yield unicodedata.normalize("NFD", stripped)


def _keys(name: str) -> tuple[str, ...]:
    """The name without differences of case, composition, surrounding spaces and URL escapes; and its stem.

    The last one is also without the eight digits that Label Studio puts before the name of an upload.
    """
    plain = unicodedata.normalize("NFC", urllib.parse.unquote(name)).strip().casefold()
    stem, _ = os.path.splitext(plain)
    return plain, f"{stem}.", f"{re.sub(r'^[0-9a-f]{8}-', '', stem)}."


def _last_part(name: str) -> str:
    """The part of a path after its last "/" or "\\"."""
    return re.split(r"[/\\]", name)[-1]


def _escaped(name: str) -> str:
    """The name in quotes; in ASCII alone, as two names that differ may look the same."""
    return printable(ascii(name))
