"""Panels: arrays of pixels or cells, enlarged, with boxes, points and text drawn in the array's coordinates.

A position ``x y`` is measured in cells from the outer corner of the first one, as a box is in an image: the
first cell's centre is at 0.5 0.5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike
from PIL import Image, ImageColor, ImageDraw, ImageFont

RED, BLUE, GREEN, YELLOW, VIOLET = "#e0483e", "#1e78d2", "#2c9f5b", "#ffd23c", "#9a5bd0"
_TEXT = "#303030"
_FONT, _TITLE, _GAP = 18, 28, 12  # pixels
_SUPERSAMPLING = 2  # for smooth lines
# Dark to bright, equally spaced: also distinct in grey.
_HEAT = np.array([(13, 8, 60), (95, 20, 130), (190, 50, 105), (245, 140, 45), (252, 245, 165)], float)


class Panel:
    """An enlarged array to draw on; ``scale`` is the side of a cell in pixels of the picture."""

    def __init__(self, cells: UInt8[np.ndarray, "h w 3"], *, scale: float, title: str = "") -> None:
        height, width = cells.shape[:2]
        self._unit = scale * _SUPERSAMPLING
        self._size = round(width * scale), round(height * scale)
        size = round(width * self._unit), round(height * self._unit)
        self._image = Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)
        self._pen = ImageDraw.Draw(self._image)
        self._title = title

    def box(self, box: ArrayLike, colour: str, *, width: float = 2) -> None:
        """The outline of a box ``x1 y1 x2 y2``, ``width`` pixels thick; its corners may be anywhere."""
        x1, y1, x2, y2 = (np.asarray(box, float) * self._unit).tolist()
        if x2 >= x1 and y2 >= y1:
            self._pen.rectangle((x1, y1, x2, y2), outline=colour, width=round(width * _SUPERSAMPLING))

    def point(self, x: float, y: float, colour: str, *, radius: float = 3) -> None:
        """A dot of ``radius`` pixels."""
        centre, radius = (x * self._unit, y * self._unit), radius * _SUPERSAMPLING
        self._pen.circle(centre, radius, fill=colour, outline="white", width=_SUPERSAMPLING)

    def grid(self, colour: str = "#ffffff") -> None:
        """Lines between the cells."""
        width, height = self._image.size
        for x in np.arange(self._unit, width, self._unit):
            self._pen.line((x, 0, x, height), fill=colour)
        for y in np.arange(self._unit, height, self._unit):
            self._pen.line((0, y, width, y), fill=colour)

    def text(self, x: float, y: float, text: str, colour: str) -> None:
        """A label on a plate of a colour, whose top left corner is near ``x y``."""
        corner, font = (x * self._unit, y * self._unit), ImageFont.load_default(_FONT * _SUPERSAMPLING)
        left, top, right, bottom = self._pen.textbbox(corner, text, font=font)
        margin = 4 * _SUPERSAMPLING
        self._pen.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=colour)
        red, green, blue, *_ = ImageColor.getrgb(colour)
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        self._pen.text(corner, text, fill="black" if bright else "white", font=font)

    def finish(self) -> Image.Image:
        """The panel as a picture, below its title."""
        picture = self._image.resize(self._size, Image.Resampling.LANCZOS)
        if not self._title:
            return picture
        framed = Image.new("RGB", (picture.width, picture.height + _TITLE), "white")
        framed.paste(picture, (0, _TITLE))
        font = ImageFont.load_default(_FONT)
        ImageDraw.Draw(framed).text((0, _TITLE / 2), self._title, fill=_TEXT, font=font, anchor="lm")
        return framed


def heat(
    values: Float[np.ndarray, "h w"], low: float | None = None, high: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Values as colours, from dark at ``low`` to bright at ``high``: by default their minimum and maximum."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    share = np.clip((values - low) / ((high - low) or 1.0), 0, 1) * (len(_HEAT) - 1)
    before = np.minimum(share.astype(int), len(_HEAT) - 2)
    after = (share - before)[..., None]
    return np.round((1 - after) * _HEAT[before] + after * _HEAT[before + 1]).astype(np.uint8)


def sheet(panels: Sequence[Panel], *, columns: int) -> Image.Image:
    """The panels in rows of ``columns``, from left to right; those of a column are as wide as the widest."""
    pictures = [panel.finish() for panel in panels]
    width = max(picture.width for picture in pictures) + _GAP
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) + _GAP for row in rows]
    whole = Image.new("RGB", (min(columns, len(pictures)) * width - _GAP, sum(heights) - _GAP), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            whole.paste(picture, (column * width, top))
        top += height
    return whole


def save(picture: Image.Image, path: Path) -> None:
    """Writes a small PNG, of 64 colours."""
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
