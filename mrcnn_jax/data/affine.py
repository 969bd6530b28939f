"""Affine maps of images and masks; turning by an angle, onto a larger image that holds all of the original.

Sizes are (height, width) in pixels, points are x and y. A map is a function of points ``[... 2]``. Angles are
in degrees, counter-clockwise as one sees them.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from mrcnn_jax.images import Size, map_channels

PointMap = Callable[[np.ndarray], np.ndarray]


def warp_mask(mask: np.ndarray, points: PointMap, size: Size) -> np.ndarray:
    """A mask bool ``[H W]`` moved by a map: bool of ``size``, each pixel as the mask is at its centre.

    Exact for whole pixels, quarter turns and flips.
    """
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(_warp(image, points, size, Image.Resampling.NEAREST, fill=0), bool)


def is_mirroring(points: PointMap) -> bool:
    """Whether a map exchanges left and right, as a flip does and a turn does not."""
    return float(np.linalg.det(_matrix(points)[0])) < 0


def rotated_size(size: Size, degrees: float) -> Size:
    """The size of the image that holds the turned one, in whole pixels (D2's ``RotationTransform``)."""
    height, width = size
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    return max(1, round(height * cosine + width * sine)), max(1, round(height * sine + width * cosine))


def rotation(size: Size, degrees: float) -> PointMap:
    """The map that turns an image of this size about its centre."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[cosine, sine], [-sine, cosine]])  # y goes down
    before, after = np.array(size[::-1]) / 2, np.array(rotated_size(size, degrees)[::-1]) / 2
    return lambda points: (points - before) @ matrix.T + after


def rotate_pixels(pixels: np.ndarray, degrees: float, *, fill: tuple[float, ...]) -> np.ndarray:
    """The turned image ``[H W C]``, interpolated bilinearly, with corners of the colour ``fill``."""
    size = pixels.shape[0], pixels.shape[1]
    new_size, bilinear = rotated_size(size, degrees), Image.Resampling.BILINEAR

    def turn(part: Image.Image, *colour: float) -> Image.Image:
        return _warp(part, rotation(size, degrees), new_size, bilinear, fill=colour)

    return map_channels(pixels, turn, fill)


def _warp(
    image: Image.Image,
    points: PointMap,
    size: Size,
    resampling: Image.Resampling,
    *,
    fill: float | tuple[float, ...],
) -> Image.Image:
    matrix, offset = _matrix(points)
    inverse = np.linalg.inv(matrix)
    coefficients = np.column_stack([inverse, -inverse @ offset]).ravel().tolist()
    return image.transform(size[::-1], Image.Transform.AFFINE, coefficients, resampling, fillcolor=fill)


def _matrix(points: PointMap) -> tuple[np.ndarray, np.ndarray]:
    """The matrix ``[2 2]`` and the offset ``[2]`` of a map."""
    corner, right, below = points(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    return np.column_stack([right - corner, below - corner]), corner
