"""Traces the outlines of masks as polygons along pixel edges.

Shapes: h x w pixels of a crop, P corners of a polygon.
"""

import numpy as np
from jaxtyping import Bool, Int, Real

from mrcnn_jax.inference.paste import PastedMask


def trace_outlines(crop: PastedMask) -> list[Int[np.ndarray, "p 2"]]:
    """The polygons around a mask, each as its corners x, y in pixels of the image; the first is not repeated.

    Corners lie where pixels meet, so they are whole numbers: the pixel in row 2, column 5 covers x from 5 to
    6 and y from 2 to 3. Filling all polygons by the even-odd rule gives exactly the mask. Outer outlines run
    clockwise as displayed and have a positive ``signed_area``; outlines of holes run the other way and have a
    negative one. Parts that touch only at a corner are outlined separately.
    """
    offset = np.array([crop.left, crop.top])
    return [polygon + offset for polygon in _trace(crop.mask)]


def signed_area(polygon: Real[np.ndarray, "p 2"]) -> float:
    """The area inside a polygon in pixels, negative for the outline of a hole (shoelace formula)."""
    x, y = polygon.T.astype(np.float64)
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


def _trace(mask: Bool[np.ndarray, "h w"]) -> list[np.ndarray]:
    """The polygons in pixels of the crop.

    In every row, the horizontal edges join the first corner to the second, the third to the fourth and so on,
    and likewise the vertical edges in every column. So a polygon is a walk that takes a horizontal and a
    vertical edge in turn. A point where only two opposite pixels belong to the mask is two corners, one per
    pixel.
    """
    padded = np.pad(mask, 1)
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    double = (above_left == below_right) & (above_right == below_left) & (above_left != above_right)
    single = above_left ^ above_right ^ below_left ^ below_right
    ys, xs = np.nonzero(single | double)
    copies = 1 + double[ys, xs].astype(np.int64)
    second = np.zeros(copies.sum(), np.int64)  # 1 for the second corner at a point
    second[np.cumsum(copies)[copies == 2] - 1] = 1
    ys, xs = np.repeat(ys, copies), np.repeat(xs, copies)
    # Of two corners at a point, the first has the edge to the left. Its vertical edge goes up if the pixel
    # above on the left belongs to the mask, and down if the one below does.
    last_in_column = np.where(above_left[ys, xs], second, 1 - second)
    by_column = np.lexsort((last_in_column, ys, xs))
    vertical = np.empty_like(by_column)
    vertical[by_column[0::2]], vertical[by_column[1::2]] = by_column[1::2], by_column[0::2]

    next_corner = vertical.tolist()
    visited = [False] * len(next_corner)
    points = np.stack([xs, ys], axis=1)
    polygons = []
    for start in range(0, len(next_corner), 2):  # the left end of a horizontal edge, the polygon's topmost
        walk, corner = [], start
        while not visited[corner]:
            visited[corner] = True
            walk += [corner, corner + 1 if corner % 2 == 0 else corner - 1]
            corner = next_corner[walk[-1]]
            visited[walk[-1]] = True
        if walk:
            is_outer = below_right[ys[start], xs[start]]
            polygons.append(points[walk if is_outer else walk[::-1]])
    return polygons
