"""Draws training batches, to show what the model is fed.

Shapes: B images, h x w pixels of a picture.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from mrcnn_jax.images import Size
from mrcnn_jax.inference.draw import SMALLEST_LONG_SIDE, draw
from mrcnn_jax.inference.fonts import draw_line, split_by_font
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Batch, GroundTruth

Picture = UInt8[np.ndarray, "_ _ 3"]

LONG_SIDE = SMALLEST_LONG_SIDE  # of a picture, in pixels: enough for legible names
_SHEET_WIDTH = 4 * (LONG_SIDE + 10)
_GAP, _CAPTION, _FONT, _BASELINE = 8, 22, 14.0, 16  # pixels; the baseline below the caption's top
_PAPER, _INK = (255, 255, 255), (0, 0, 0)
_CHECKS = 8  # side in pixels of a square of the padding's checkerboard
_CHECK_COLOURS = np.array([(70, 70, 80), (100, 100, 110)], np.uint8)
_STRIPES = 16  # pixels from one stripe of a crowd to the next


def draw_batch(batch: Batch, categories: Categories, pixels: PixelFormat = RGB) -> list[Picture]:
    """A picture of each canvas in a batch of NumPy arrays, resized to a long side of 640 pixels.

    Boxes, masks (pasted through ``mask_boxes``), keypoints and names are drawn over the pixels. A crowd is
    striped and labelled as such, or as ignored if it stands for objects beyond ``data.max_objects``; padding
    is a checkerboard. ``pixels`` are what the images are.
    """
    canvas = batch.images.shape[1:3]
    rows, columns = (max(1, round(side * LONG_SIDE / max(canvas))) for side in canvas)
    shown = rows, columns
    scale = np.array([shown[1] / canvas[1], shown[0] / canvas[0]], np.float32)  # x, y
    pictures = []
    for row, (height, width) in enumerate(np.asarray(batch.image_sizes).tolist()):
        size = max(1, round(height * float(scale[1]))), max(1, round(width * float(scale[0])))
        result = _as_result(batch.gt, row, shown, size, scale, categories)
        crowd = np.asarray(batch.gt.crowd)[row][np.asarray(batch.gt.valid)[row]]
        image = pixels.show(np.asarray(batch.images)[row, :height, :width])
        picture = _paint(image, shown, size, crowds=result.boxes[crowd])
        names = zip(result.names, result.labels.tolist(), crowd.tolist(), strict=True)
        texts = [
            (f"crowd: {name}" if label else "ignored") if crowd else name for name, label, crowd in names
        ]
        pictures.append(draw(picture, result, texts=texts))
    return pictures


def caption_batch(batch: Batch, step: int) -> list[str]:
    """A caption for each row of a step's batch: the image id and its size on the canvas."""
    canvas = f"{batch.images.shape[1]}x{batch.images.shape[2]}"
    sizes = np.asarray(batch.image_sizes).tolist()
    return [
        f"step {step}   image {image_id}   {height}x{width} on {canvas}"
        for image_id, (height, width) in zip(np.asarray(batch.ids).tolist(), sizes, strict=True)
    ]


def _as_result(
    gt: GroundTruth, row: int, shown: Size, size: Size, scale: Float[np.ndarray, "2"], categories: Categories
) -> Result:
    """An image's valid objects, on a picture of shape ``shown`` in which the image itself has ``size``."""
    valid = np.asarray(gt.valid)[row]

    def valid_rows(field: jax.Array | np.ndarray) -> np.ndarray:
        return np.asarray(field)[row][valid]

    crops = keypoints = None
    if gt.masks is not None and gt.mask_boxes is not None:
        masks, frames = valid_rows(gt.masks).astype(np.float32), valid_rows(gt.mask_boxes) * np.tile(scale, 2)
        crops = tuple(paste_mask(mask, frame, size) for mask, frame in zip(masks, frames, strict=True))
    if gt.keypoints is not None:
        keypoints = valid_rows(gt.keypoints) * np.array([*scale, 1], np.float32)
        keypoints[keypoints[..., 2] == 0] = np.nan  # not labelled, so not drawn
    return Result(
        boxes=valid_rows(gt.boxes) * np.tile(scale, 2),
        scores=np.ones(int(valid.sum()), np.float32),
        labels=valid_rows(gt.labels),
        image_size=shown,
        categories=categories,
        crops=crops,
        keypoints=keypoints,
    )


def _paint(
    image: Picture, shown: Size, size: Size, *, crowds: Float[np.ndarray, "n 4"]
) -> UInt8[np.ndarray, "h w 3"]:
    """An image resized to ``size`` on a checkerboard of ``shown``, with stripes over crowds."""
    picture = np.zeros((*shown, 3), np.uint8)
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    picture[: size[0], : size[1]] = np.asarray(resized)
    for box in crowds:
        stripes = _stripes(box, shown)
        picture[stripes] = picture[stripes] // 2 + 127  # translucent
    row, column = np.indices(shown)
    checks = _CHECK_COLOURS[(row // _CHECKS + column // _CHECKS) % 2]
    padding = (row >= size[0]) | (column >= size[1])
    picture[padding] = checks[padding]
    return picture


def _stripes(box: Float[np.ndarray, "4"], shape: Size) -> Bool[np.ndarray, "h w"]:
    """Where to draw slanted lines inside ``box`` on a picture of this shape."""
    row, column = np.indices(shape)
    x1, y1, x2, y2 = box
    inside = (column >= x1) & (column < x2) & (row >= y1) & (row < y2)
    return inside & ((row + column) % _STRIPES < 2)


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str]) -> Picture:
    """One picture with all ``pictures`` in rows from left to right, each below its caption."""
    corners, right, bottom = [], 0, 0
    left = top = _GAP
    for picture in pictures:
        height, width = picture.shape[:2]
        if left > _GAP and left + width + _GAP > _SHEET_WIDTH:
            left, top = _GAP, bottom
        corners.append((left, top))
        left += width + _GAP
        right, bottom = max(right, left), max(bottom, top + _CAPTION + height + _GAP)
    sheet = Image.new("RGB", (right, bottom), _PAPER)
    pencil = ImageDraw.Draw(sheet)
    for picture, caption, (x, y) in zip(pictures, captions, corners, strict=True):
        draw_line(pencil, split_by_font(caption, _FONT), left=x, baseline=y + _BASELINE, ink=_INK)
        sheet.paste(Image.fromarray(picture), (x, y + _CAPTION))
    return np.array(sheet)
