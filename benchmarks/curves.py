"""Draws a benchmark's curves over logarithmic axes, with Pillow."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT = 480, 340  # of a panel, in pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 60, 20, 36  # margins around its axes
_COLORS = ("#1e78d2", "#e0483e", "#2c9f5b", "#9a5bd0", "#d98b1f")
_TEXT, _GRID = "#303030", "#d8d8d8"


class Panel(NamedTuple):
    """One plot: curves of points ``(x, y)`` by name. All numbers are above 0."""

    title: str
    curves: dict[str, list[tuple[float, float]]]


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Writes the panels to one picture, two per row.

    Raises ``ValueError`` if there are none.
    """
    if not panels:
        raise ValueError(f"{path}: there are no curves to draw")
    columns = min(len(panels), 2)
    picture = Image.new("RGB", (columns * _WIDTH, -(-len(panels) // columns) * _HEIGHT), "white")
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        picture.paste(_draw_panel(panel), (column * _WIDTH, row * _HEIGHT))
    picture.quantize(64).save(path, optimize=True)


def _draw_panel(panel: Panel) -> Image.Image:
    scale = 2  # supersampling, for smooth lines
    image = Image.new("RGB", (scale * _WIDTH, scale * _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * scale)
    xs, ys = ([p[axis] for curve in panel.curves.values() for p in curve] for axis in (0, 1))
    low, high = (min(xs), min(ys)), (max(xs), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (
            math.log(value / first) / (math.log(last / first) or 1.0)
            for value, first, last in zip((x, y), low, high, strict=True)
        )
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return scale * (_LEFT + across * width), scale * (_TOP + (1 - up) * height)

    pen.text((scale * _LEFT, scale * 10), panel.title, fill=_TEXT, font=font)
    for x in sorted(set(xs)):
        pen.line([place(x, low[1]), place(x, high[1])], fill=_GRID, width=scale)
        pen.text((place(x, low[1])[0], scale * (_HEIGHT - 28)), f"{x:g}", fill=_TEXT, font=font, anchor="mt")
    for y in _ticks(low[1], high[1]):
        pen.line([place(low[0], y), place(high[0], y)], fill=_GRID, width=scale)
        pen.text((scale * (_LEFT - 8), place(low[0], y)[1]), f"{y:g}", fill=_TEXT, font=font, anchor="rm")
    name_at: float = scale * _LEFT
    for number, (name, curve) in enumerate(panel.curves.items()):
        color = _COLORS[number % len(_COLORS)]
        points = [place(x, y) for x, y in sorted(curve)]
        pen.line(points, fill=color, width=2 * scale, joint="curve")
        for x, y in points:
            pen.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), fill=color)
        pen.text((name_at, scale * 30), name, fill=color, font=font)
        name_at += font.getlength(name) + scale * 16
    return image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten, times 1, 2 and 5, from ``low`` to ``high``."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]
