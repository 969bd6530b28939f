"""RoIAlign: the features of each region of interest, sampled bilinearly (Mask R-CNN, section 3 and figure 3).

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region, T rows of a table.

All levels of a pyramid lie in one ``[T C]`` table of cells, and a region is an offset into it with the height
and width of its level. One step then handles one sampling point of every bin of every region: four gathers of
``[N P P C]`` and one accumulator. Differentiating that would keep every gathered array, and scatter each one
into a table of its own, so the gradient is written by hand: the same steps, scattering into a single table.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import assign_levels, level_numbers
from mrcnn_jax.ops.platforms import batch_max, in_blocks, split


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Shaped[Array, "n 4"],
    *,
    stride: float,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    map_size: Int[Array, "2"] | None = None,
) -> Float[Array, "n p p c"]:
    """Features of ``output_size x output_size`` bins of each box, each bin the mean of its sampling points.

    ``boxes`` are in pixels, ``stride`` is the pixels per cell of ``features``. A bin has ``sampling_ratio``
    points per axis, or with 0 as many as it has cells, rounded up. ``aligned`` puts the centre of cell 0 at
    half a stride (D2's ROIAlignV2); without it at 0, and boxes count as at least one cell wide and high.
    Points more than one cell outside the map contribute 0, other points outside are moved to its edge. All as
    torchvision's ``roi_align``. ``map_size`` is how many rows and columns the map has, if not all of
    ``features``: those of an image on a larger canvas.

    The result has the type of ``features``; positions, weights and sums are float32, in the gradient as well.
    There is no gradient to ``boxes`` (proposals are constants to the heads, Faster 3.2) and no forward-mode
    derivative. With ``sampling_ratio`` 0 the time is that of the box with most points, and a box larger than
    twice the map gets the points of one that large.
    """
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    sizes = None if map_size is None else [map_size]
    return _align([features], [stride], sizes, level, boxes, output_size, sampling_ratio, aligned)


def multilevel_roi_align(
    features: dict[str, Float[Array, "_ _ c"]],
    boxes: Shaped[Array, "n 4"],
    *,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_size: float = 224.0,
    level_rule: str = "detectron2",
    map_sizes: dict[str, Int[Array, "2"]] | None = None,
) -> Float[Array, "n p p c"]:
    """:func:`roi_align` of each box on the pyramid level that :func:`assign_levels` gives it.

    ``features`` are keyed ``"p2"``, ``"p3"``, ... without gaps, as are the ``map_sizes`` of ``roi_align``;
    level k has a stride of ``2**k`` pixels.

    Raises ``ValueError`` for keys of another form, or with gaps.
    """
    levels = level_numbers(features)
    level = assign_levels(
        boxes, min_level=levels[0], max_level=levels[-1], canonical_size=canonical_size, rule=level_rule
    )
    names = [f"p{level}" for level in levels]
    maps = [features[name] for name in names]
    sizes = None if map_sizes is None else [map_sizes[name] for name in names]
    strides = [2.0**level for level in levels]
    return _align(maps, strides, sizes, level - levels[0], boxes, output_size, sampling_ratio, aligned)


class _Regions(NamedTuple):
    """Where the regions lie: in cells, and in the table."""

    start: Array  # [N 2] float32: y and x of the top left corner
    bin_size: Array  # [N 2] float32
    points: Array  # [N 2] int32: sampling points per bin, per axis
    map_size: Array  # [N 2] int32: height and width of the region's level
    row_length: Array  # [N] int32: table rows from one row of that level to the next
    offset: Array  # [N] int32: row of the level's first cell


def _align(
    maps: list[Array],
    strides: list[float],
    map_sizes: list[Array] | None,
    level: Array,
    boxes: Array,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Array:
    """RoIAlign of each box on ``maps[level]``."""
    rows = [m.shape[0] * m.shape[1] for m in maps]
    offsets = [sum(rows[:i]) for i in range(len(rows))]
    stride = jnp.asarray(strides, jnp.float32)[level]
    shapes = jnp.asarray([m.shape[:2] for m in maps], jnp.int32)
    map_size = (shapes if map_sizes is None else jnp.stack(map_sizes).astype(jnp.int32))[level]

    corners = boxes.astype(jnp.float32)[:, [1, 0, 3, 2]] / stride[:, None] - (0.5 if aligned else 0.0)
    side = corners[:, 2:] - corners[:, :2]
    if not aligned:
        side = jnp.maximum(side, 1.0)
    if sampling_ratio > 0:
        points = jnp.full(side.shape, sampling_ratio, jnp.int32)
    else:
        # In integers, because XLA multiplies by 1/7 where 21 / 7 is meant, and that is more than 3. The limit
        # bounds the time that boxes far out of bounds, as in padding, can take.
        cells = jnp.clip(jnp.ceil(side).astype(jnp.int32), 0, 2 * map_size)
        points = (cells + output_size - 1) // output_size
    regions = _Regions(
        start=corners[:, :2],
        bin_size=side / output_size,
        points=points,
        map_size=map_size,
        row_length=shapes[:, 1][level],
        offset=jnp.asarray(offsets, jnp.int32)[level],
    )
    table = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in maps])
    return _pool(table, regions, output_size, sampling_ratio, table.shape[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _pool(table: Array, regions: _Regions, output_size: int, sampling_ratio: int, rows: int) -> Array:
    """The means ``[N P P C]`` of the bins' sampling points in ``table [rows C]``."""

    def pool_block(regions: _Regions) -> Array:
        def add_point(step: Array, total: Array) -> Array:
            for index, weight in _neighbours(regions, step, output_size):
                cells = table.at[index].get(mode="promise_in_bounds")
                total = total + weight[..., None] * cells.astype(jnp.float32)
            return total

        shape = (regions.offset.shape[0], output_size, output_size, table.shape[1])
        total = lax.fori_loop(0, _steps(regions, sampling_ratio), add_point, jnp.zeros(shape, jnp.float32))
        return (total / _point_count(regions)).astype(table.dtype)

    def pool(regions: _Regions, *, block: int) -> Array:
        pooled = lax.map(pool_block, split(regions, block))
        return pooled.reshape(-1, *pooled.shape[2:])

    if sampling_ratio > 0:
        return pool_block(regions)  # large steps suit every platform here
    return in_blocks(pool, output_size**2 * table.shape[1], regions)


def _pool_forward(
    table: Array, regions: _Regions, output_size: int, sampling_ratio: int, rows: int
) -> tuple[Array, _Regions]:
    return _pool(table, regions, output_size, sampling_ratio, rows), regions


def _pool_backward(
    output_size: int, sampling_ratio: int, rows: int, regions: _Regions, gradient: Array
) -> tuple[Array, None]:
    """The gradient of the table; the regions have none."""

    def add_block(table: Array, block: tuple[_Regions, Array]) -> tuple[Array, None]:
        regions, gradient = block
        share = gradient.astype(jnp.float32) / _point_count(regions)

        def add_point(step: Array, table: Array) -> Array:
            for index, weight in _neighbours(regions, step, output_size):
                table = table.at[index].add(weight[..., None] * share, mode="promise_in_bounds")
            return table

        return lax.fori_loop(0, _steps(regions, sampling_ratio), add_point, table), None

    def scatter(regions: _Regions, gradient: Array, *, block: int) -> Array:
        table = jnp.zeros((rows, gradient.shape[-1]), jnp.float32)
        table, _ = lax.scan(add_block, table, split((regions, gradient), block))
        return table.astype(gradient.dtype)

    return in_blocks(scatter, output_size**2 * gradient.shape[-1], regions, gradient), None


_pool.defvjp(_pool_forward, _pool_backward)


def _point_count(regions: _Regions) -> Float[Array, "n 1 1 1"]:
    count = jnp.maximum(regions.points[:, 0] * regions.points[:, 1], 1)
    return count.astype(jnp.float32)[:, None, None, None]


def _steps(regions: _Regions, sampling_ratio: int) -> int | Array:
    """How many points the bins of any region have at most."""
    if sampling_ratio > 0:
        return sampling_ratio**2
    return batch_max(regions.points[:, 0] * regions.points[:, 1])


def _neighbours(regions: _Regions, step: Array, output_size: int) -> list[tuple[Array, Array]]:
    """Table rows and weights, each ``[N P P]``, of the four cells around point ``step`` of every bin.

    Points are counted row by row. The weights are 0 where a region has fewer points, and outside the map.
    """
    points_x = jnp.maximum(regions.points[:, 1], 1)
    row = step // points_x
    column = step - row * points_x
    used = row < regions.points[:, 0]
    ys = _axis_neighbours(regions, 0, row, output_size)
    xs = _axis_neighbours(regions, 1, column, output_size)
    row_length = regions.row_length[:, None]
    first = regions.offset[:, None]
    neighbours = []
    for y, weight_y in ys:
        for x, weight_x in xs:
            index = (first + y * row_length)[:, :, None] + x[:, None, :]
            weight = jnp.where(used[:, None], weight_y, 0.0)[:, :, None] * weight_x[:, None, :]
            neighbours.append((index, weight))
    return neighbours


def _axis_neighbours(
    regions: _Regions, axis: int, point: Array, output_size: int
) -> list[tuple[Array, Array]]:
    """The cells before and after a point of each bin along one axis, and their weights: ``[N P]`` each."""
    start, bin_size = regions.start[:, axis, None], regions.bin_size[:, axis, None]
    size = regions.map_size[:, axis, None]
    bins = jnp.arange(output_size, dtype=jnp.float32)
    points = jnp.maximum(regions.points[:, axis, None], 1).astype(jnp.float32)
    within = (point.astype(jnp.float32)[:, None] + 0.5) * bin_size / points
    position = start + bins * bin_size + within  # [N 1] + [P] * [N 1] + [N 1]
    inside = (position >= -1.0) & (position <= size)
    position = jnp.clip(position, 0.0, size - 1)
    # Clamped as integers too: what a NaN of a padding row becomes must stay within the table.
    low = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, size - 1)
    high = jnp.minimum(low + 1, size - 1)
    fraction = position - low
    return [
        (low, jnp.where(inside, 1.0 - fraction, 0.0)),
        (high, jnp.where(inside, fraction, 0.0)),
    ]
