"""RoIAlign by looking cells up, and its gradient by adding to them.

Shapes: C channels, N regions, P x P bins of a region, T rows of a table.

Maps are tables of cells. One step looks up the four cells around one point of every bin of every region and
adds them to one accumulator. Differentiating that would keep every gathered array, and scatter each one into
a table of its own, so the gradient is written by hand: the same steps, scattering into the tables.

What is called ``cached`` is for CPUs. They look up and add twice as fast where the values of a step stay in
the cache, so regions are done in blocks or one by one. And as copying the largest map takes as long as
looking all regions up, that one is a table by itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mrcnn_jax.ops.roi_align.samples import Neighbours, Regions, Settings, neighbours, per_point, point_count
from mrcnn_jax.runtime.batching import batch_max
from mrcnn_jax.runtime.blocks import in_blocks


class _Layout(NamedTuple):
    """Which maps each table holds, one below the other, and where in it a map is."""

    tables: list[list[int]]
    offset: np.ndarray  # [levels]: table row of the first cell
    row_length: np.ndarray  # [levels]: table rows from one row of the map to the next


def _lay_out(shapes: Sequence[tuple[int, ...]], *, cached: bool) -> _Layout:
    rows = [height * width for height, width in shapes]
    largest = int(np.argmax(rows))
    others = [k for k in range(len(rows)) if k != largest]
    tables = [[largest], others] if cached and others else [list(range(len(rows)))]
    offset = np.zeros(len(rows), np.int32)
    for table in tables:
        offset[table] = np.cumsum([0] + [rows[k] for k in table[:-1]])
    return _Layout(tables, offset, np.array([width for _, width in shapes], np.int32))


def _rows(layout: _Layout, regions: Regions, cell: Neighbours) -> Array:
    """The rows of cells in the tables of their regions: ``[N P P]``."""
    row_length, offset = (jnp.asarray(a)[regions.level, None] for a in (layout.row_length, layout.offset))
    return (offset + cell.y * row_length)[:, :, None] + cell.x[:, None, :]


def _weights(cell: Neighbours) -> Array:
    return (cell.weight_y[:, :, None] * cell.weight_x[:, None, :])[..., None]


def _on_table(table: list[int], regions: Regions) -> Array:
    return jnp.isin(regions.level, jnp.asarray(table))


def _steps(regions: Regions, settings: Settings) -> int | Array:
    """How many points the bins of any region have at most."""
    return settings.sampling_ratio**2 or batch_max(point_count(regions))


def pool(
    maps: list[Array], regions: Regions, *, settings: Settings, cached: bool
) -> tuple[Array, Array | None]:
    """The features ``[N P P C]`` in float32, and for a maximum which point it is of, counted row by row."""
    layout = _lay_out([m.shape[:2] for m in maps], cached=cached)
    flat = [m.reshape(-1, m.shape[-1]) for m in maps]
    tables = [
        jnp.concatenate([flat[k] for k in table]) if len(table) > 1 else flat[table[0]]
        for table in layout.tables
    ]

    def look_up(regions: Regions, step: Array) -> Array:
        """The values of one point of each bin."""
        value = jnp.float32(0.0)
        for cell in neighbours(regions, step, settings.output_size):
            row, weight = _rows(layout, regions, cell), _weights(cell)
            for members, table in zip(layout.tables, tables, strict=True):
                here = _on_table(members, regions)[:, None, None] if len(tables) > 1 else True
                found = table.at[jnp.where(here, row, 0)].get(mode="promise_in_bounds")
                value += jnp.where(jnp.expand_dims(here, -1), weight * found.astype(jnp.float32), 0.0)
        return value

    def pool_together(regions: Regions) -> tuple[Array, Array | None]:
        shape = (regions.level.shape[0], settings.output_size, settings.output_size, flat[0].shape[-1])
        if settings.reduction == "mean":
            return _mean(regions, settings, shape, look_up), None
        return _max(regions, settings, shape, look_up)

    if cached and settings.sampling_ratio == 0:
        return in_blocks(pool_together, point_count(regions), regions)
    return pool_together(regions)


def _mean(
    regions: Regions, settings: Settings, shape: tuple[int, ...], look_up: Callable[[Regions, Array], Array]
) -> Array:
    steps = _steps(regions, settings)
    total = lax.fori_loop(
        0,
        steps,
        lambda step, total: total + look_up(regions, step),
        jnp.zeros(shape, jnp.float32),
        unroll=_unrolled(steps),
    )
    return per_point(total, regions)


def _max(
    regions: Regions, settings: Settings, shape: tuple[int, ...], look_up: Callable[[Regions, Array], Array]
) -> tuple[Array, Array]:
    count = point_count(regions)[:, None, None, None]

    def take_larger(step: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        value = look_up(regions, step)
        larger = (value > best[0]) & (step < count)
        return jnp.where(larger, value, best[0]), jnp.where(larger, step, best[1])

    start = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    steps = _steps(regions, settings)
    value, point = lax.fori_loop(0, steps, take_larger, start, unroll=_unrolled(steps))
    return jnp.where(count > 0, value, 0.0), point


def _unrolled(steps: int | Array) -> int | None:
    """Few steps in one: XLA then keeps the sums of a bin in registers, and writes them once."""
    return min(steps, 4) if isinstance(steps, int) else None


def scatter(
    regions: Regions,
    share: Array,
    largest: Array | None,
    *,
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    cached: bool,
) -> list[Array]:
    """The gradients of the maps, from what each point of a bin, or the ``largest``, gets: ``[N P P C]``."""
    layout = _lay_out(shapes, cached=cached)
    operands = _Operands(regions, share, largest)
    gradients: list[Array] = [share] * len(shapes)
    for members in layout.tables:
        ends = np.cumsum([shapes[k][0] * shapes[k][1] for k in members])
        table = jnp.zeros((ends[-1], share.shape[-1]), jnp.float32)
        if cached:
            table = _add_in_turn(table, _on_table(members, regions), operands, layout, settings)
        else:
            table = _add(table, jnp.bool_(True), operands, layout, settings)
        for k, part in zip(members, jnp.split(table, ends[:-1]), strict=True):
            gradients[k] = part.reshape(*shapes[k], -1)
    return gradients


class _Operands(NamedTuple):
    regions: Regions
    share: Array  # [N P P C] float32
    largest: Array | None  # [N P P C] int32


def _add_in_turn(
    table: Array, here: Array, operands: _Operands, layout: _Layout, settings: Settings
) -> Array:
    """``table`` with the gradients of the regions that are ``here`` added, one after the other."""
    order = jnp.argsort(~here)
    count = jnp.sum(here)

    def add_region(number: Array, table: Array) -> Array:
        one = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, order[number], 1), operands)
        # Of a batch, another image may have more regions here.
        return _add(table, number < count, one, layout, settings)

    return lax.fori_loop(0, batch_max(count), add_region, table)


def _add(table: Array, here: Array, operands: _Operands, layout: _Layout, settings: Settings) -> Array:
    """``table`` with the gradients of all regions added, if they are ``here``."""
    regions, share, largest = operands

    def add_step(step: Array, table: Array) -> Array:
        part = share if largest is None else jnp.where(largest == step, share, 0.0)
        for cell in neighbours(regions, step, settings.output_size):
            row = jnp.where(here, _rows(layout, regions, cell), table.shape[0])
            table = table.at[row].add(_weights(cell) * part, mode="drop")
        return table

    return lax.fori_loop(0, _steps(regions, settings), add_step, table)
