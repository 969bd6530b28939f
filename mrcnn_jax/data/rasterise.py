"""Rasterises polygons and bitmaps into box-frame masks."""

import numpy as np

from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.rle import Rle


def rasterise(segmentation: Segmentation, box: Box, grid: int) -> np.ndarray:
    """The object's mask on a grid over ``box``: uint8 0 or 1 ``[grid grid]``, row 0 at the box's top.

    For polygons, a cell is 1 if its centre is inside; for a bitmap, if at least half its area is.
    """
    if isinstance(segmentation, Rle):
        return _resample(segmentation.decode(), box, grid)
    mask = np.zeros((grid, grid), bool)
    corner, extent = np.array(box[:2]), np.subtract(box[2:], box[:2])
    for polygon in segmentation:
        mask |= _fill((polygon - corner) * (grid / extent), grid, grid)
    return mask.astype(np.uint8)


def pixels_of(segmentation: Segmentation, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The pixels of a part of the image whose centre is inside the mask: bool ``[height width]``."""
    if isinstance(segmentation, Rle):
        return segmentation.decode()[top : top + height, left : left + width]
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= _fill(polygon - (left, top), height, width)
    return mask


def _fill(polygon: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The cells ``[rows columns]`` whose centre is inside a polygon ``[N 2]`` (even-odd rule).

    Along each row of centres, inside and outside alternate wherever an edge crosses the row.
    """
    centres = np.arange(rows) + 0.5
    x, y = polygon.T
    next_x, next_y = np.roll(polygon, -1, axis=0).T
    edge, row = np.nonzero((y[:, None] <= centres) != (next_y[:, None] <= centres))
    fraction = (centres[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + fraction * (next_x[edge] - x[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, columns).astype(np.int64)  # the first centre from there on
    changes = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1))
    return np.cumsum(changes.reshape(rows, columns + 1), axis=1)[:, :columns] % 2 == 1


def _resample(bitmap: np.ndarray, box: Box, grid: int) -> np.ndarray:
    """A bitmap ``[H W]`` averaged over the cells of a grid on the box; a mean of at least 1/2 becomes 1."""
    row_means = _cell_means(bitmap, box[1], box[3], grid)
    means = _cell_means(row_means.T, box[0], box[2], grid).T
    return (means >= 0.5 - 1e-6).astype(np.uint8)  # rounding errors must not decide exact halves


def _cell_means(values: np.ndarray, start: float, stop: float, grid: int) -> np.ndarray:
    """Means ``[grid ...]`` over ``grid`` equal cells from start to stop along the first axis of ``values``.

    Row ``i`` of ``values`` spans ``i`` to ``i + 1``; a mean is the difference of the integral at two edges.
    """
    edges = np.linspace(start, stop, grid + 1)
    row = np.minimum(edges.astype(np.int64), len(values) - 1)
    first = row[0]
    values, row, edges = values[first : row[-1] + 1], row - first, edges - first
    before = np.cumsum(values, axis=0, dtype=np.float64) - values
    integral = before[row] + (edges - row)[:, None] * values[row]
    return np.diff(integral, axis=0) * (grid / (stop - start))
