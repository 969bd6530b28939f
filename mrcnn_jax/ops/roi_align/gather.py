"""RoIAlign by gathering cells, and its gradient by scatter-add.

Shapes: C channels, N regions, P x P bins of a region, T rows of a table.

Maps are tables of cells. Each step gathers the four cells around one sampling point of every bin of every
region and adds them to one accumulator. JAX's own gradient would keep every gathered array, and scatter each
into a table of its own, so the gradient is written by hand, scattering into shared tables.

As jaxlib 0.10.2 compiles it for a GPU, the values are one kernel after a copy of the maps into the table, and
with a fixed number of points the gradient is a single scatter of four channels at a time: by a vector atomic
on an H100, and by four scalar ones on an A100.

The ``cached`` variant is for CPUs. They gather and add twice as fast if a step's values stay in the cache, so
regions are processed in blocks or one by one. Copying the largest map would take as long as gathering all
regions, so that map is a table by itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mrcnn_jax.ops.roi_align.samples import (
    CornerCell,
    Regions,
    Settings,
    corner_cells,
    per_point,
    point_count,
)
from mrcnn_jax.runtime.batching import batch_max
from mrcnn_jax.runtime.blocks import in_blocks


class _TableLayout(NamedTuple):
    """The maps in each table, concatenated by rows, and each map's position in its table."""

    tables: list[list[int]]
    offset: np.ndarray  # [levels]: table row of the first cell
    row_length: np.ndarray  # [levels]: table rows from one row of the map to the next


def _lay_out(shapes: Sequence[tuple[int, ...]], *, cached: bool) -> _TableLayout:
    rows = [height * width for height, width in shapes]
    largest = int(np.argmax(rows))
    others = [k for k in range(len(rows)) if k != largest]
    tables = [[largest], others] if cached and others else [list(range(len(rows)))]
    offset = np.zeros(len(rows), np.int32)
    for table in tables:
        offset[table] = np.cumsum([0] + [rows[k] for k in table[:-1]])
    return _TableLayout(tables, offset, np.array([width for _, width in shapes], np.int32))


def _rows(layout: _TableLayout, regions: Regions, cell: CornerCell) -> Array:
    """The cells' rows in the tables of their regions: ``[N P P]``."""
    row_length, offset = (jnp.asarray(a)[regions.level, None] for a in (layout.row_length, layout.offset))
    return (offset + cell.y * row_length)[:, :, None] + cell.x[:, None, :]


def _weights(cell: CornerCell) -> Array:
    return (cell.weight_y[:, :, None] * cell.weight_x[:, None, :])[..., None]


def _is_in_table(table: list[int], regions: Regions) -> Array:
    return jnp.isin(regions.level, jnp.asarray(table))


def _steps(regions: Regions, settings: Settings) -> int | Array:
    """The largest number of sampling points per bin of any region."""
    return settings.sampling_ratio**2 or batch_max(point_count(regions))


def pool(
    maps: list[Array], regions: Regions, *, settings: Settings, cached: bool
) -> tuple[Array, Array | None]:
    """The features ``[N P P C]`` in float32 and, for a maximum, its sampling point's row-major index."""
    layout = _lay_out([m.shape[:2] for m in maps], cached=cached)
    flat = [m.reshape(-1, m.shape[-1]) for m in maps]
    tables = [
        jnp.concatenate([flat[k] for k in table]) if len(table) > 1 else flat[table[0]]
        for table in layout.tables
    ]
    if not cached:
        # Without the barrier, a GPU would select the map of each cell by branches, and load single channels.
        tables = lax.optimization_barrier(tables)

    def sample(regions: Regions, step: Array) -> Array:
        """The values at one sampling point of each bin."""
        value = jnp.float32(0.0)
        for cell in corner_cells(regions, step, settings.output_size):
            row, weight = _rows(layout, regions, cell), _weights(cell)
            for members, table in zip(layout.tables, tables, strict=True):
                in_table = _is_in_table(members, regions)[:, None, None] if len(tables) > 1 else True
                found = table.at[jnp.where(in_table, row, 0)].get(mode="promise_in_bounds")
                value += jnp.where(jnp.expand_dims(in_table, -1), weight * found.astype(jnp.float32), 0.0)
        return value

    def pool_together(regions: Regions) -> tuple[Array, Array | None]:
        shape = (regions.level.shape[0], settings.output_size, settings.output_size, flat[0].shape[-1])
        if settings.reduction == "mean":
            return _mean(regions, settings, shape, sample), None
        return _max(regions, settings, shape, sample)

    if cached and settings.sampling_ratio == 0:
        return in_blocks(pool_together, point_count(regions), regions)
    return pool_together(regions)


def _mean(
    regions: Regions, settings: Settings, shape: tuple[int, ...], sample: Callable[[Regions, Array], Array]
) -> Array:
    steps = _steps(regions, settings)
    total = lax.fori_loop(
        0,
        steps,
        lambda step, total: total + sample(regions, step),
        jnp.zeros(shape, jnp.float32),
        unroll=_unroll(steps),
    )
    return per_point(total, regions)


def _max(
    regions: Regions, settings: Settings, shape: tuple[int, ...], sample: Callable[[Regions, Array], Array]
) -> tuple[Array, Array]:
    count = point_count(regions)[:, None, None, None]

    def take_larger(step: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        value = sample(regions, step)
        larger = (value > best[0]) & (step < count)
        return jnp.where(larger, value, best[0]), jnp.where(larger, step, best[1])

    start = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    steps = _steps(regions, settings)
    value, point = lax.fori_loop(0, steps, take_larger, start, unroll=_unroll(steps))
    return jnp.where(count > 0, value, 0.0), point


def _unroll(steps: int | Array) -> int | None:
    """The unroll factor: when unrolled, XLA keeps a bin's sums in registers and writes them once."""
    return min(steps, 4) if isinstance(steps, int) else None


def scatter(
    regions: Regions,
    point_gradient: Array,
    max_point: Array | None,
    *,
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    cached: bool,
) -> list[Array]:
    """The gradients of the maps, given the gradient per sampling point (mean) or at ``max_point`` (max).

    ``point_gradient`` and ``max_point`` are ``[N P P C]``.
    """
    layout = _lay_out(shapes, cached=cached)
    operands = _Operands(regions, point_gradient, max_point)
    gradients: list[Array] = [point_gradient] * len(shapes)
    for members in layout.tables:
        ends = np.cumsum([shapes[k][0] * shapes[k][1] for k in members])
        table = jnp.zeros((ends[-1], point_gradient.shape[-1]), jnp.float32)
        if cached:
            table = _add_one_by_one(table, _is_in_table(members, regions), operands, layout, settings)
        else:
            table = _add_together(table, operands, layout, settings)
        for k, part in zip(members, jnp.split(table, ends[:-1]), strict=True):
            gradients[k] = part.reshape(*shapes[k], -1)
    return gradients


class _Operands(NamedTuple):
    regions: Regions
    point_gradient: Array  # [N P P C] float32
    max_point: Array | None  # [N P P C] int32


def _add_one_by_one(
    table: Array, in_table: Array, operands: _Operands, layout: _TableLayout, settings: Settings
) -> Array:
    """``table`` plus the gradients of the regions that are ``in_table``, one region at a time."""
    order = jnp.argsort(~in_table)
    count = jnp.sum(in_table)

    def add_region(number: Array, table: Array) -> Array:
        one = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, order[number], 1), operands)
        # The loop's bound is the batch's: another image may have more regions in this table.
        return _add(table, number < count, one, layout, settings)

    return lax.fori_loop(0, batch_max(count), add_region, table)


def _add(
    table: Array, in_table: Array, operands: _Operands, layout: _TableLayout, settings: Settings
) -> Array:
    """``table`` plus the gradients of all regions, if they are ``in_table``."""
    regions, point_gradient, max_point = operands

    def add_step(step: Array, table: Array) -> Array:
        gradient = point_gradient
        if max_point is not None:
            gradient = jnp.where(max_point == step, point_gradient, 0.0)
        for cell in corner_cells(regions, step, settings.output_size):
            row = jnp.where(in_table, _rows(layout, regions, cell), table.shape[0])
            table = table.at[row].add(_weights(cell) * gradient, mode="drop")
        return table

    return lax.fori_loop(0, _steps(regions, settings), add_step, table)


def _add_together(table: Array, operands: _Operands, layout: _TableLayout, settings: Settings) -> Array:
    """``table`` plus the gradients of all regions, in a single scatter if the number of points is fixed."""
    regions, point_gradient, max_point = operands

    def add_steps(table: Array, steps: Array) -> Array:
        cells = [(step, cell) for step in steps for cell in corner_cells(regions, step, settings.output_size)]
        row = jnp.stack([_rows(layout, regions, cell) for _, cell in cells], axis=3)  # [N P P cells]
        weight = jnp.stack([_weights(cell) for _, cell in cells], axis=3)
        # Without the barrier, a GPU would compute these for each channel, and add the channels one by one.
        row, weight = lax.optimization_barrier((row, weight))
        gradient = point_gradient[:, :, :, None]
        if max_point is not None:
            step_of_cell = jnp.stack([step for step, _ in cells])[:, None]
            gradient = jnp.where(max_point[:, :, :, None] == step_of_cell, gradient, 0.0)
        return table.at[row].add(weight * gradient, mode="drop")

    steps = _steps(regions, settings)
    if isinstance(steps, int):
        return add_steps(table, jnp.arange(steps))
    return lax.fori_loop(0, steps, lambda step, table: add_steps(table, step[None]), table)
