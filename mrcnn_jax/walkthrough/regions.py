"""Where RoIAlign and RoIPool read a map, and pictures of that.

Shapes: H x W cells of a map, P x P bins of a region, K points of a bin along an axis.

Positions are in cells from the outer corner of the first one (``drawing.py``).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mrcnn_jax.ops.roi_align.samples import Regions, positions
from mrcnn_jax.ops.roi_pool import roi_pool
from mrcnn_jax.walkthrough.drawing import BLUE, RED, YELLOW, Panel


def sampling_points(
    box: Float[np.ndarray, "4"],
    map_size: tuple[int, int],
    *,
    stride: float,
    output_size: int,
    points: int,
    aligned: bool = True,
) -> tuple[Float[np.ndarray, "p k"], Float[np.ndarray, "p k"]]:
    """The x of the points of each column of bins, and the y of each row, as ``roi_align`` samples them.

    ``box`` is in pixels, ``stride`` the pixels per cell of a map of ``map_size`` = (rows, columns), and
    ``points`` are those of a bin along an axis.
    """
    corners = np.asarray(box, np.float32)[[1, 0, 3, 2]] / stride - (0.5 if aligned else 0.0)
    side = corners[2:] - corners[:2] if aligned else np.maximum(corners[2:] - corners[:2], 1)
    regions = Regions(
        level=jnp.zeros(1, jnp.int32),
        start=jnp.asarray(corners[None, :2]),
        bin_size=jnp.asarray(side[None] / output_size),
        points=jnp.full((1, 2), points, jnp.int32),
        map_size=jnp.asarray([map_size], jnp.int32),
    )
    y, x = (np.asarray(positions(regions, axis, output_size, jnp.arange(points))[0][0]) for axis in (0, 1))
    return x + 0.5, y + 0.5


def pooled_cells(
    box: Float[np.ndarray, "4"], map_size: tuple[int, int], *, stride: float, output_size: int
) -> Float[np.ndarray, "p p 4"]:
    """The rectangle of whole cells ``x1 y1 x2 y2`` that ``roi_pool`` takes each bin's maximum of.

    They are what it makes of maps of the cells' own positions: the maximum is the last cell's, and that of
    their negatives the first's.
    """
    y, x = np.mgrid[: map_size[0], : map_size[1]].astype(np.float32)
    maps = jnp.asarray(np.stack([-x, -y, x, y], axis=-1))
    pool = jax.jit(roi_pool, static_argnames=("stride", "output_size"))
    pooled = pool(maps, jnp.asarray(box, jnp.float32)[None], stride=float(stride), output_size=output_size)
    return np.asarray(pooled)[0] * np.array([-1, -1, 1, 1]) + np.array([0, 0, 1, 1])


def draw_align(
    cells: UInt8[np.ndarray, "h w 3"],
    box: Float[np.ndarray, "4"],
    *,
    stride: float,
    output_size: int,
    points: int,
    scale: float,
    title: str = "RoIAlign",
) -> Panel:
    """The map with the region, its bins and the points that RoIAlign samples."""
    panel = Panel(cells, scale=scale, title=title)
    panel.grid("#808080")
    x1, y1, x2, y2 = np.asarray(box, float) / stride
    columns, rows = np.linspace(x1, x2, output_size + 1), np.linspace(y1, y2, output_size + 1)
    for left, right in itertools.pairwise(columns):
        for top, bottom in itertools.pairwise(rows):
            panel.box((left, top, right, bottom), BLUE)
    panel.box((x1, y1, x2, y2), YELLOW, width=3)
    x, y = sampling_points(box, cells.shape[:2], stride=stride, output_size=output_size, points=points)
    for at_y in y.ravel():
        for at_x in x.ravel():
            panel.point(at_x, at_y, RED, radius=min(4, scale / 8))
    return panel


def draw_pool(
    cells: UInt8[np.ndarray, "h w 3"],
    box: Float[np.ndarray, "4"],
    *,
    stride: float,
    output_size: int,
    scale: float,
    title: str = "RoIPool",
) -> Panel:
    """The map with the region and the whole cells that RoIPool takes maxima of."""
    panel = Panel(cells, scale=scale, title=title)
    panel.grid("#808080")
    bins = pooled_cells(box, cells.shape[:2], stride=stride, output_size=output_size).reshape(-1, 4)
    inset = 0.06  # bins may overlap by a cell: each outline stays visible
    for number, rectangle in enumerate(bins):
        shift = inset * (1 + number % 2)
        panel.box(rectangle + np.array([shift, shift, -shift, -shift]), BLUE)
    panel.box(np.asarray(box, float) / stride, YELLOW, width=3)
    return panel
