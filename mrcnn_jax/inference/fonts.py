"""Finds fonts that have the characters of a text.

Pillow's own font, which comes first, is Latin only. For other scripts the fonts installed on the system are
tried, in an order that depends on nothing but their names.
"""

import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageDraw, ImageFont

from mrcnn_jax.inference.font_tables import read_characters

# Words in the file names of fonts that are not the plain one of their family, and of fonts whose glyphs only
# say that a character has none.
_STYLES = re.compile(
    "bold|black|heavy|italic|oblique|light|thin|medium|condensed|narrow|mono|serif|display|math", re.I
)
_PLACEHOLDERS = re.compile("lastresort|blank|tofu", re.I)
_LONGEST_TEXT = 100  # characters
# Joiners and variation selectors, which shape their neighbours: fonts need not have a glyph for them.
_INVISIBLE = frozenset("\u200c\u200d\ufe0e\ufe0f")


@dataclass(frozen=True)
class Run:
    """A part of a text, and the font to draw it in."""

    text: str
    font: ImageFont.FreeTypeFont


def split_by_font(text: str, size: float) -> list[Run]:
    """The text in parts, from left to right, each with a font of ``size`` pixels that has its characters.

    A word is in one font, and so are neighbouring words if possible. Characters of a word that no font has
    are escaped as in Python, like control characters: ``\\u732b``. A text of more than 100 characters is cut.
    """
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT - 3]}..."
    runs: list[Run] = []
    for word in re.findall(r" *[^ ]+(?: +$)?|^ +$", text):
        font, shown = _choose(word, size)
        if runs and runs[-1].font is font:
            runs[-1] = Run(runs[-1].text + shown, font)
        else:
            runs.append(Run(shown, font))
    return runs


def draw_line(
    pencil: ImageDraw.ImageDraw, line: Iterable[Run], *, left: int, baseline: int, ink: tuple[int, ...]
) -> None:
    """Draws the parts of a text beside each other, from ``left`` on, on a ``baseline``; both in pixels."""
    x = float(left)
    for run in line:
        pencil.text((x, baseline), run.text, fill=ink, font=run.font, anchor="ls")
        x += run.font.getlength(run.text)


def _choose(word: str, size: float) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font of a word, and the word, in which what no font has is escaped."""
    wanted = np.array([ord(character) for character in set(word) - _INVISIBLE], np.uint32)
    if np.isin(wanted, _default_characters()).all():
        return _default(size), word
    for file in _installed():
        if np.isin(wanted, _characters(file)).all() and (font := _load(file, size)) is not None:
            return font, word
    known = set(map(chr, _default_characters().tolist()))
    escaped = (x if x in known else x.encode("unicode_escape").decode("ascii") for x in word)
    return _default(size), "".join(escaped)


@functools.lru_cache(maxsize=8)
def _default(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as always if a size is given
    return font


@functools.cache
def _default_characters() -> np.ndarray:
    return read_characters(_default(10.0).font_bytes)


@functools.lru_cache(maxsize=64)
def _load(file: Path, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(file, size)
    except OSError:  # damaged, or not scalable
        return None


@functools.cache
def _characters(file: Path) -> np.ndarray:
    try:
        return read_characters(file.read_bytes())
    except OSError:
        return np.zeros(0, np.uint32)


@functools.cache
def _installed() -> tuple[Path, ...]:
    """The files of the fonts in the system's folders, plain ones first."""
    files = {
        Path(folder, name)
        for root in _folders()
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith((".ttf", ".otf", ".ttc")) and not _PLACEHOLDERS.search(name)
    }
    return tuple(sorted(files, key=lambda file: (len(_STYLES.findall(file.stem)), file.name, str(file))))


def _folders() -> Iterator[Path]:
    home = Path.home()
    data = os.environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    yield home / ".fonts"
    yield from (Path(folder, "fonts") for folder in (data, *shared.split(":")) if folder)
    if sys.platform == "darwin":
        yield from (home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts"))
