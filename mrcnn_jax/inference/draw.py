"""Draws results: masks, boxes, keypoints and names over the image.

Each object has one colour, chosen by its index in the result. Small images are enlarged first, because text
is illegible on an image of 128 pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from mrcnn_jax.inference.fonts import Run, draw_line, split_by_font
from mrcnn_jax.inference.label_layout import place_labels
from mrcnn_jax.inference.results import Result

Color = tuple[int, int, int]  # RGB, 0 to 255

SMALLEST_LONG_SIDE = 640  # pixels; smaller images are enlarged by an integer factor to at least this

# Vivid and easy to tell apart, adjacent entries most of all; legible under black or white text.
COLORS = (
    (255, 64, 80),
    (30, 144, 255),
    (255, 200, 20),
    (20, 180, 100),
    (190, 90, 255),
    (255, 130, 30),
    (0, 200, 215),
    (255, 100, 190),
    (150, 205, 40),
    (100, 110, 245),
    (205, 120, 80),
    (70, 215, 160),
    (215, 50, 150),
    (150, 160, 175),
)
_FILL = 0.4  # opacity of a mask
_EDGE = 0.9  # opacity of a mask's edge
_LABEL = 0.85  # opacity of a label's background


@dataclass(frozen=True)
class _Pen:
    """Font size and line width in pixels, scaled with the picture."""

    font: float
    line: int  # of box edges and mask edges

    @staticmethod
    def of(width: int, height: int) -> "_Pen":
        # 12 px text on 640x480, 63 px on a 12-megapixel photo.
        font = max(12.0, math.sqrt(width * height) / 58 + 3)
        return _Pen(font=font, line=max(1, round(font / 8)))


def draw(
    image: UInt8[np.ndarray, "height width 3"],
    result: Result,
    *,
    texts: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The RGB ``image`` with ``result`` drawn on it; ``result.above(threshold)`` leaves weak objects out.

    ``texts``, one per object, replace the names and scores, and ``colors`` the objects' colours.

    An image whose long side is under 640 pixels is enlarged by an integer factor to at least that; any other
    keeps its size. Raises ``ValueError`` unless the image is uint8 and has the size of the result's image.
    """
    if image.shape != (*result.image_size, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image is {image.dtype} {list(image.shape)}; "
            f"this result is of a uint8 image {[*result.image_size, 3]}"
        )
    factor = max(1, math.ceil(SMALLEST_LONG_SIDE / max(result.image_size)))
    height, width = (side * factor for side in result.image_size)
    pen = _Pen.of(width, height)
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)

    if colors is None:
        colors = [COLORS[index % len(COLORS)] for index in range(len(result))]
    sides = np.maximum(result.boxes[:, 2:] - result.boxes[:, :2], 0)
    largest_first = np.argsort(-sides.prod(axis=1), kind="stable").tolist()
    if result.crops is not None:
        _draw_masks(canvas, result, largest_first, factor, pen, colors)
    _draw_boxes(canvas, result, largest_first, factor, pen, colors)
    if result.keypoints is not None:
        for i in largest_first:
            if result.labels[i] in result.categories.keypoint_labels:
                _draw_skeleton(canvas, result.keypoints[i, :, :2] * factor, result, colors[i], pen)
    if texts is None:
        scores = result.scores.tolist()
        texts = [f"{name} {score:.2f}" for name, score in zip(result.names, scores, strict=True)]
    _draw_labels(canvas, result.boxes * factor, texts, pen, colors)
    return np.array(canvas)


def _draw_masks(
    canvas: Image.Image, result: Result, order: list[int], factor: int, pen: _Pen, colors: Sequence[Color]
) -> None:
    margin = math.ceil(pen.line / factor) + 1  # of background, so that a mask that fills its crop has an edge
    for i in order:
        crop = (result.crops or ())[i]
        if not crop.mask.any():
            continue
        mask = Image.fromarray(np.pad(crop.mask, margin).astype(np.uint8) * 255)
        if factor > 1:  # smooth the stair-stepped outline
            mask = mask.resize((mask.width * factor, mask.height * factor), Image.Resampling.BICUBIC)
        inside = np.asarray(mask) >= 128
        # A blurred value of 255 means that the edge is further away than the pen's width.
        inner = (
            np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(pen.line)))
            == 255
        )
        opacity = np.where(inner, np.uint8(255 * _FILL), np.uint8(255 * _EDGE)) * inside
        corner = ((crop.left - margin) * factor, (crop.top - margin) * factor)
        canvas.paste(colors[i], corner, Image.fromarray(opacity))


def _draw_boxes(
    canvas: Image.Image, result: Result, order: list[int], factor: int, pen: _Pen, colors: Sequence[Color]
) -> None:
    pencil = ImageDraw.Draw(canvas)
    for i in order:
        x1, y1, x2, y2 = (result.boxes[i] * factor).round().astype(int).tolist()
        corners = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
        pencil.rectangle(corners, outline=colors[i], width=pen.line)


def _draw_skeleton(canvas: Image.Image, points: np.ndarray, result: Result, color: Color, pen: _Pen) -> None:
    """Draws bones with a dark outline and white joints, supersampled so that slanted lines are smooth."""
    seen = np.isfinite(points).all(axis=1)
    if not seen.any():
        return
    radius = 1.3 * pen.line + 1
    low = np.maximum(np.floor(points[seen].min(axis=0) - 2 * radius), 0)
    high = np.minimum(np.ceil(points[seen].max(axis=0) + 2 * radius), canvas.size)
    if not (high > low).all():
        return
    width, height = (high - low).astype(int).tolist()
    scale = min(max(int(math.sqrt(4e6 / (width * height))), 1), 4)  # keeps most layers under 4 megapixels
    layer = Image.new("RGBA", (width * scale, height * scale))
    pencil = ImageDraw.Draw(layer)
    x, y = ((points - low) * scale).T
    bones = [(a, b) for a, b in result.categories.skeleton if seen[a] and seen[b]]
    for ink, thickness in (((0, 0, 0, 160), pen.line + 2), ((*color, 255), pen.line + 0.5)):
        for a, b in bones:
            pencil.line((x[a], y[a], x[b], y[b]), fill=ink, width=max(round(thickness * scale), 1))
    for ink, r in (
        ((0, 0, 0, 160), radius + 0.7),
        ((*color, 255), radius),
        ((255, 255, 255, 255), 0.55 * radius),
    ):
        for i in np.flatnonzero(seen):
            pencil.circle((x[i], y[i]), r * scale, fill=ink)
    layer = layer.resize((width, height), Image.Resampling.BOX)
    canvas.paste(layer, tuple(low.astype(int).tolist()), layer)


def _draw_labels(
    canvas: Image.Image, boxes: np.ndarray, texts: Sequence[str], pen: _Pen, colors: Sequence[Color]
) -> None:
    margin = max(2, round(pen.font / 5))
    lines = [split_by_font(text, pen.font) for text in texts]
    sizes = [_line_size(line, margin) for line in lines]
    corners = place_labels(boxes, sizes, canvas.size)
    for i in reversed(range(len(texts))):  # the best object on top
        color = colors[i]
        plate = Image.new("RGBA", sizes[i], (*color, round(255 * _LABEL)))
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        ink = (0, 0, 0, 255) if bright else (255, 255, 255, 255)
        pencil = ImageDraw.Draw(plate)
        baseline = 1 + max((run.font.getmetrics()[0] for run in lines[i]), default=0)
        draw_line(pencil, lines[i], left=margin, baseline=baseline, ink=ink)
        canvas.paste(plate, corners[i], plate)


def _line_size(line: Sequence[Run], margin: int) -> tuple[int, int]:
    """Width and height in pixels of a label with this text."""
    width = sum(run.font.getlength(run.text) for run in line)
    ascents, descents = zip(*(run.font.getmetrics() for run in line), strict=True) if line else ((0,), (0,))
    return math.ceil(width) + 2 * margin, max(ascents) + max(descents) + 2
