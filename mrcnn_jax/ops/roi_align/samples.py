"""RoIAlign's sampling points, and the cells around them with their weights.

Shapes: N regions, P bins of a region along an axis, K points of a bin along an axis.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from mrcnn_jax.runtime.batching import batch_max


class Settings(NamedTuple):
    """The static arguments of :func:`~mrcnn_jax.ops.roi_align.roi_align`."""

    output_size: int
    sampling_ratio: int
    reduction: str
    form: str | None


class Regions(NamedTuple):
    """Positions of regions, in cells of their level."""

    level: Array  # [N] int32: index of the map
    start: Array  # [N 2] float32: y and x of the top left corner
    bin_size: Array  # [N 2] float32
    points: Array  # [N 2] int32: sampling points per bin, per axis
    map_size: Array  # [N 2] int32: height and width of the map


class CornerCell(NamedTuple):
    """One of the four cells around a sampling point, for every bin.

    ``y`` depends only on a bin's row, ``x`` only on its column.
    """

    y: Array  # [N P] int32
    weight_y: Array  # [N P] float32: 0 where a region has fewer points, and outside the map
    x: Array
    weight_x: Array


def point_count(regions: Regions) -> Array:
    """The number of sampling points per bin: ``[N]`` int32."""
    return regions.points[:, 0] * regions.points[:, 1]


def per_point(values: Array, regions: Regions) -> Array:
    """``values`` of bins, ``[N P P C]``, divided by the number of points per bin."""
    return values / jnp.maximum(point_count(regions), 1).astype(jnp.float32)[:, None, None, None]


def positions(regions: Regions, axis: int, output_size: int, point: Array) -> tuple[Array, Array]:
    """Positions of sampling points along an axis, clamped to the map, and whether they count: ``[N P K]``.

    ``point`` holds the points' indices, which are the same for all bins: ``[N 1 K]``, or ``[K]`` for all
    regions.
    """
    start, bin_size, points, size = (
        a[:, axis, None, None] for a in (regions.start, regions.bin_size, regions.points, regions.map_size)
    )
    bins = jnp.arange(output_size, dtype=jnp.float32)[:, None]
    return point_positions(start, bin_size, points, size, bins, point)


def point_positions(
    start: Array, bin_size: Array, points: Array, size: Array, bins: Array, point: Array
) -> tuple[Array, Array]:
    """:func:`positions` of ``point`` of the bins numbered ``bins`` (float32), elementwise."""
    within = (point.astype(jnp.float32) + 0.5) * bin_size / jnp.maximum(points, 1).astype(jnp.float32)
    position = start + bins * bin_size + within
    counts = (point < points) & (position >= -1.0) & (position <= size)
    return jnp.clip(position, 0.0, size - 1), counts


def corner_cells(regions: Regions, step: Array, output_size: int) -> list[CornerCell]:
    """The four cells around point ``step`` of every bin; points are indexed in row-major order."""
    per_row = jnp.maximum(regions.points[:, 1], 1)
    row = lax.div(jnp.broadcast_to(step, per_row.shape), per_row)  # nothing is negative, so no floor_divide
    column = step - row * per_row
    sides = []
    for axis, point in ((0, row), (1, column)):
        position, counts = positions(regions, axis, output_size, point[:, None, None])
        position, counts, size = position[..., 0], counts[..., 0], regions.map_size[:, axis, None]
        # Clamped as integers too, so that a padding row's NaN cannot become an index outside the map.
        low = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, size - 1)
        high = jnp.minimum(low + 1, size - 1)
        fraction = position - low
        sides.append(
            [
                (low, jnp.where(counts, 1.0 - fraction, 0.0)),
                (high, jnp.where(counts, fraction, 0.0)),
            ]
        )
    return [CornerCell(*y, *x) for y in sides[0] for x in sides[1]]


def interpolation(regions: Regions, axis: int, output_size: int, cells: int) -> Array:
    """The total weight of each of ``cells`` over each bin's points: ``[N P cells]``."""

    def add_point(point: Array, total: Array) -> Array:
        return total + sample_matrix(regions, axis, output_size, cells, point[None])[:, :, 0]

    shape = (regions.level.shape[0], output_size, cells)
    return lax.fori_loop(0, batch_max(regions.points[:, axis]), add_point, jnp.zeros(shape, jnp.float32))


def sample_matrix(regions: Regions, axis: int, output_size: int, cells: int, point: Array) -> Array:
    """The weight of each of ``cells`` at points ``[K]`` of each bin: ``[N P K cells]``."""
    position, counts = positions(regions, axis, output_size, point)
    tent = jnp.maximum(1.0 - jnp.abs(position[..., None] - jnp.arange(cells)), 0.0)
    return jnp.where(counts[..., None], tent, 0.0)
