"""Masks in the frame of their boxes, from polygons and bitmaps."""

import numpy as np

from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.rle import Rle


def rasterise(segmentation: Segmentation, box: Box, grid: int) -> np.ndarray:
    """The object's shape in the frame of ``box``: uint8 0 or 1 ``[grid grid]``, row 0 at the box's top.

    A cell of a polygon is 1 if its centre is inside; a cell of a bitmap, if at least half its area is.
    """
    if isinstance(segmentation, Rle):
        return _resample(segmentation.decode(), box, grid)
    mask = np.zeros((grid, grid), bool)
    corner, extent = np.array(box[:2]), np.subtract(box[2:], box[:2])
    for polygon in segmentation:
        mask |= _fill((polygon - corner) * (grid / extent), grid)
    return mask.astype(np.uint8)


def _fill(polygon: np.ndarray, grid: int) -> np.ndarray:
    """The cells ``[grid grid]`` with their centre inside a polygon ``[N 2]`` (by the even-odd rule).

    Along a row of centres, inside begins and ends where an edge crosses it.
    """
    centres = np.arange(grid) + 0.5
    x, y = polygon.T
    next_x, next_y = np.roll(polygon, -1, axis=0).T
    edge, row = np.nonzero((y[:, None] <= centres) != (next_y[:, None] <= centres))
    share = (centres[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + share * (next_x[edge] - x[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, grid).astype(np.int64)  # the first centre at or behind it
    changes = np.bincount(row * (grid + 1) + column, minlength=grid * (grid + 1)).reshape(grid, grid + 1)
    return np.cumsum(changes, axis=1)[:, :grid] % 2 == 1


def _resample(bitmap: np.ndarray, box: Box, grid: int) -> np.ndarray:
    """A bitmap ``[H W]`` averaged over the cells of a grid on the box, at least half counting as 1."""
    over_rows = _cell_means(bitmap, box[1], box[3], grid)
    share = _cell_means(over_rows.T, box[0], box[2], grid).T
    return (share >= 0.5 - 1e-6).astype(np.uint8)  # rounding must not decide over exact halves


def _cell_means(values: np.ndarray, start: float, stop: float, grid: int) -> np.ndarray:
    """Means ``[grid ...]`` over ``grid`` equal cells from start to stop along the first axis of ``values``.

    Row ``i`` of ``values`` lies from ``i`` to ``i + 1``; a mean is the integral's growth between two edges.
    """
    edges = np.linspace(start, stop, grid + 1)
    row = np.minimum(edges.astype(np.int64), len(values) - 1)
    first = row[0]
    values, row, edges = values[first : row[-1] + 1], row - first, edges - first
    before = np.cumsum(values, axis=0, dtype=np.float64) - values
    integral = before[row] + (edges - row)[:, None] * values[row]
    return np.diff(integral, axis=0) * (grid / (stop - start))
