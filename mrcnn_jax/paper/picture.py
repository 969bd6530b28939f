"""Draws a table's differences, the paper's beside ours, with Pillow."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mrcnn_jax.paper.summary import Difference
from mrcnn_jax.paper.tables import Table

_WIDTH, _ROW, _TOP, _BOTTOM = 900, 44, 92, 40  # pixels
_LEFT, _RIGHT = 330, 110  # of the axis
_PAPER, _OURS, _TEXT, _GRID = "#9aa4b0", "#1e78d2", "#303030", "#e2e2e2"
_VERDICTS = {
    "yes": ("shows", "#2c9f5b"),
    "no": ("does not", "#e0483e"),
    "noise": ("noise", "#8a8a8a"),
    "one seed": ("one seed", "#8a8a8a"),
}
_SCALE = 2  # supersampling, for smooth lines


def draw_differences(table: Table, found: Sequence[Difference], path: Path) -> None:
    """Writes a picture with a line for every difference: the paper's, ours with all seeds, and the verdict.

    Raises ``ValueError`` if there are none.
    """
    if not found:
        raise ValueError(f"{path}: there are no differences to draw")
    height = _TOP + _ROW * len(found) + _BOTTOM
    image = Image.new("RGB", (_SCALE * _WIDTH, _SCALE * height), "white")
    pen = ImageDraw.Draw(image)
    fonts = {size: ImageFont.load_default(size * _SCALE) for size in (13, 16)}

    points = [0.0, *(point for item in found for point in (item.paper, *item.ours))]
    low, high = min(points), max(points)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if high - low <= 8 * step)
    low, high = step * (low // step), -step * (-high // step)

    def at(point: float) -> float:
        return _SCALE * (_LEFT + (point - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT))

    def write(
        x: float, y: float, text: str, color: str = _TEXT, *, size: int = 13, anchor: str = "lm"
    ) -> None:
        pen.text((_SCALE * x, _SCALE * y), text, fill=color, font=fonts[size], anchor=anchor)

    write(16, 22, f"Table {table.number}. {table.title}", size=16)
    write(16, 46, f"The paper: {table.claim}.")
    bottom = _TOP + _ROW * len(found)
    ticks = [low + step * number for number in range(round((high - low) / step) + 1)]
    for tick in ticks:
        line = [(at(tick), _SCALE * _TOP), (at(tick), _SCALE * bottom)]
        pen.line(line, fill=_TEXT if tick == 0 else _GRID, width=_SCALE)
        write(at(tick) / _SCALE, bottom + 12, f"{tick:+g}" if tick else "0", anchor="mm")
    write(_LEFT, 74, "the paper, on COCO", _PAPER)
    write(_LEFT + 160, 74, "here, small scale: mean, and a dot for each seed", _OURS)
    write(16, bottom + 12, "difference in AP points")

    for number, item in enumerate(found):
        y = _TOP + _ROW * (number + 0.5)
        write(16, y - 8, item.label)
        write(16, y + 9, str(item.metric), "#8a8a8a")
        for value, color, top, thick in ((item.paper, _PAPER, y - 13, 8), (item.mean, _OURS, y + 1, 8)):
            left, right = sorted((at(0), at(value)))
            pen.rectangle((left, _SCALE * top, right, _SCALE * (top + thick)), fill=color)
        for point in item.ours:
            x, middle, radius = at(point), _SCALE * (y + 5), _SCALE * 4
            box = (x - radius, middle - radius, x + radius, middle + radius)
            pen.ellipse(box, fill="white", outline=_OURS, width=_SCALE)
        text, color = _VERDICTS[item.verdict]
        write(_WIDTH - _RIGHT + 16, y, text, color)
    image.resize((_WIDTH, height), Image.Resampling.LANCZOS).quantize(256).save(path, optimize=True)
