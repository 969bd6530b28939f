"""The shapes that labelling tools draw, and their COCO fields.

All coordinates are in pixels of the upright image. The pixel (row, column) covers ``column`` to
``column + 1`` and ``row`` to ``row + 1``, and belongs to a shape if its centre is inside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn_jax.data import fields
from mrcnn_jax.data.coco import clip_box
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle


@dataclass(frozen=True, eq=False)
class Rectangle:
    """A box that says nothing about the object's outline."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, eq=False)
class Polygon:
    """An outline."""

    points: np.ndarray  # [N 2] float64: x, y


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Pixels of a part of the image."""

    pixels: np.ndarray  # [h w] bool
    top: int  # row and column of the first pixel
    left: int


Region = Rectangle | Polygon | Bitmap


def polygon(points: Sequence[Sequence[float]]) -> Polygon:
    """The polygon through ``points``. Raises ValueError for fewer than three points, or all on one line."""
    array = np.array(points, np.float64).reshape(-1, 2)
    if len(array) < 3:
        raise ValueError(f"a polygon must have at least 3 points, got {len(array)}")
    if np.linalg.matrix_rank(array - array[0], tol=1e-6) < 2:
        raise ValueError(f"the {len(array)} points of a polygon must not lie on one line")
    return Polygon(array)


def rectangle(points: Sequence[Sequence[float]]) -> Rectangle:
    """The smallest box around ``points``. Raises ValueError if it has no area."""
    array = np.array(points, np.float64).reshape(-1, 2)
    (x1, y1), (x2, y2) = array.min(axis=0).tolist(), array.max(axis=0).tolist()
    if x1 == x2 or y1 == y2:
        raise ValueError(f"a rectangle must have an area, got {x1:g} {y1:g} to {x2:g} {y2:g}")
    return Rectangle(x1, y1, x2, y2)


def ellipse(x: float, y: float, rx: float, ry: float, *, angle: float = 0.0, size: Size) -> Bitmap:
    """The pixels of an image of ``size`` inside an ellipse with centre ``x`` ``y`` and the given radii.

    ``angle`` turns the ellipse clockwise as seen on the screen, in radians. Raises ValueError unless both
    radii are positive and at least one pixel is inside.
    """
    if not (rx > 0 and ry > 0):
        raise ValueError(f"the radii of a circle or an ellipse must be positive, got {rx:g} and {ry:g}")
    cos, sin = math.cos(angle), math.sin(angle)
    reach_x, reach_y = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    left, right = (min(max(math.floor(edge), 0), size[1]) for edge in (x - reach_x, x + reach_x + 1))
    top, bottom = (min(max(math.floor(edge), 0), size[0]) for edge in (y - reach_y, y + reach_y + 1))
    dx = np.arange(left, right) + 0.5 - x
    dy = (np.arange(top, bottom) + 0.5 - y)[:, None]
    inside = ((dx * cos + dy * sin) / rx) ** 2 + ((dy * cos - dx * sin) / ry) ** 2 <= 1
    if not inside.any():
        raise ValueError(f"no pixel of the image lies in the circle or ellipse around {x:g} {y:g}")
    return Bitmap(inside, top=top, left=left)


def to_coco(regions: Sequence[Region], size: Size) -> dict[str, Any]:
    """The fields ``bbox``, ``area`` and ``segmentation`` of an object made of ``regions``.

    Polygons stay polygons, unless they are joined with a bitmap: then the mask is the RLE of all pixels in
    any of the parts. Rectangles extend the box only; an object of rectangles has no segmentation. The box is
    clipped to the image of ``size``. Raises ValueError if nothing is left of it.
    """
    corners = [_corners(region) for region in regions]
    box = clip_box(
        (
            min(corner[0] for corner in corners),
            min(corner[1] for corner in corners),
            max(corner[2] for corner in corners),
            max(corner[3] for corner in corners),
        ),
        size,
    )
    if box is None:
        raise ValueError(f"lies outside the image of {size[1]} x {size[0]} pixels")
    bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    polygons = [region.points for region in regions if isinstance(region, Polygon)]
    bitmaps = [region for region in regions if isinstance(region, Bitmap)]
    if bitmaps:
        crop = _union(polygons, bitmaps, box)
        top, left = math.floor(box[1]), math.floor(box[0])
        rle = Rle.from_crop(crop, top=top, left=left, image_size=size)
        return {"bbox": bbox, "area": int(crop.sum()), "segmentation": rle.compressed()}
    if not polygons:
        return {"bbox": bbox, "area": bbox[2] * bbox[3], "segmentation": []}
    return {
        "bbox": bbox,
        "area": _area(polygons, box),
        "segmentation": [points.ravel().tolist() for points in polygons],
    }


def _corners(region: Region) -> tuple[float, float, float, float]:
    """The box around a region, ``x1 y1 x2 y2``."""
    match region:
        case Rectangle():
            return region.x1, region.y1, region.x2, region.y2
        case Polygon():
            (x1, y1), (x2, y2) = region.points.min(axis=0).tolist(), region.points.max(axis=0).tolist()
            return x1, y1, x2, y2
        case Bitmap():
            rows, columns = (
                np.flatnonzero(region.pixels.any(axis=1)),
                np.flatnonzero(region.pixels.any(axis=0)),
            )
            if not len(rows):
                raise ValueError("a mask must have at least one pixel")
            x1, x2 = region.left + columns[0], region.left + columns[-1] + 1
            y1, y2 = region.top + rows[0], region.top + rows[-1] + 1
            return float(x1), float(y1), float(x2), float(y2)


def _area(polygons: list[np.ndarray], box: tuple[float, float, float, float]) -> float:
    """The area of a polygon; of several, which may overlap, and of one that is clipped, a count of pixels."""
    if len(polygons) == 1:
        (points,) = polygons
        x, y = points.T
        inside = x.min() >= box[0] and y.min() >= box[1] and x.max() <= box[2] and y.max() <= box[3]
        area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
        if inside and area > 0:
            return area
    return int(_union(polygons, [], box).sum())


def _union(
    polygons: list[np.ndarray], bitmaps: list[Bitmap], box: tuple[float, float, float, float]
) -> np.ndarray:
    """The pixels of all parts that ``box`` touches, bool ``[h w]``."""
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    height, width = bottom - top, right - left
    pixels = np.zeros((height, width), bool)
    if polygons:
        side = max(height, width)  # cells of one pixel
        square = rasterise(tuple(polygons), (left, top, left + side, top + side), side)
        pixels |= square[:height, :width].astype(bool)
    for bitmap in bitmaps:
        rows, columns = bitmap.pixels.shape
        first_row, first_column = bitmap.top - top, bitmap.left - left
        source = bitmap.pixels[
            max(0, -first_row) : height - first_row, max(0, -first_column) : width - first_column
        ]
        target = pixels[max(0, first_row) : first_row + rows, max(0, first_column) : first_column + columns]
        target |= source
    return pixels


def read_points(value: Any, key: str) -> list[list[float]]:
    """The points ``[[x, y], ...]`` of the field ``key`` of untrusted JSON.

    Raises ValueError for anything else.
    """
    if not (
        isinstance(value, list)
        and value
        and all(fields.is_numbers(point) and len(point) == 2 for point in value)
    ):
        raise fields.error("", key, "a list of points [x, y]", value)
    return value
