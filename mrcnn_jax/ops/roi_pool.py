"""RoIPool: the maximum of each bin of a region of interest (Fast R-CNN, section 2.1).

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region, T rows of a table.

A bin is a rectangle of whole cells, often hundreds of them. Its maximum is the maximum over a few squares
that cover it and may overlap. So the maxima of all squares with sides of 1, 2 and 4 cells are computed first,
for the whole map, and stored in one ``[T C]`` table. Each step then looks up one square for every bin.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import maps_and_levels
from mrcnn_jax.runtime.batching import batch_max
from mrcnn_jax.runtime.blocks import in_blocks
from mrcnn_jax.runtime.platforms import by_platform

MAX_DOUBLINGS = 2  # sides of up to 4 cells; computing those of 8 takes as long as it saves


def roi_pool(
    features: Float[Array, "h w c"],
    boxes: Shaped[Array, "n 4"],
    *,
    stride: float,
    output_size: int,
    map_size: Int[Array, "2"] | None = None,
) -> Float[Array, "n p p c"]:
    """The maximum of each of ``output_size x output_size`` bins of each box, exactly as in torchvision.

    ``boxes`` are in pixels, ``stride`` is the pixels per cell of ``features``. Corners are rounded to whole
    cells, halves away from 0, and the last cell belongs to the box, so a box has at least one. Bins extend
    from the floor of their start to the ceiling of their end, and may overlap by a cell. A bin without a
    cell in the map is 0. ``map_size`` is the number of rows and columns of ``features`` that belong to the
    image, if not all: the rest is padding.

    A bin's gradient goes to its largest cell, the first in row-major order among equals. ``boxes`` get no
    gradient, and there is no forward-mode derivative. Features must not be NaN. A box longer than four times
    the longest side of ``features`` gets the bins of a box of that length.
    """
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    sizes = None if map_size is None else [map_size]
    return _pool_maps([features], [stride], sizes, level, boxes, output_size)


def multilevel_roi_pool(
    features: dict[str, Float[Array, "_ _ c"]],
    boxes: Shaped[Array, "n 4"],
    *,
    output_size: int,
    canonical_size: float = 224.0,
    level_rule: str = "detectron2",
    map_sizes: dict[str, Int[Array, "2"]] | None = None,
) -> Float[Array, "n p p c"]:
    """:func:`roi_pool` of each box on the pyramid level that :func:`assign_levels` gives it.

    ``features`` and ``map_sizes`` (see ``roi_pool``) are keyed ``"p2"``, ``"p3"``, ... without gaps; level k
    has a stride of ``2**k`` pixels. Raises ``ValueError`` for keys of another form, or with gaps.
    """
    placed = maps_and_levels(features, map_sizes, boxes, canonical_size=canonical_size, rule=level_rule)
    return _pool_maps(*placed, boxes, output_size)


def round_to_cells(boxes: Shaped[Array, "n 4"], stride: Shaped[Array, " n"]) -> Float[Array, "n 4"]:
    """The first row, first column, last row and last column of each box, on a map of its ``stride``.

    ``boxes`` are in pixels. Their corners are rounded to whole cells, halves away from 0. The last cell
    belongs to the box; it may be before the first one, if the box's corners are in the wrong order.
    """
    cells = boxes.astype(jnp.float32)[:, [1, 0, 3, 2]] * (1 / stride)[:, None]
    # Clipped so that the contents of padding rows fit in integers; no map is this large.
    return lax.round(jnp.clip(cells, -1e8, 1e8), lax.RoundingMethod.AWAY_FROM_ZERO)


class _Bins(NamedTuple):
    """Positions of the bins on their region's level."""

    level: Array  # [N] int32
    start: Array  # [N 2 P] int32: first row, and first column
    end: Array  # [N 2 P] int32: row and column after the last


class _Cells(NamedTuple):
    """Cell values, and their indices among the cells of all maps in row-major order, if needed."""

    value: Array
    flat_index: Array | None


class _Squares(NamedTuple):
    """Positions of the squares in the table, by level and log2 of the side: ``[levels, doublings + 1]``."""

    offset: np.ndarray  # table row of the first square
    row_length: np.ndarray  # table rows from one row of squares to the next
    max_log_side: np.ndarray  # [levels]


def _pool_maps(
    maps: list[Array],
    strides: list[float],
    map_sizes: list[Array] | None,
    level: Array,
    boxes: Array,
    output_size: int,
) -> Array:
    """RoIPool of each box on ``maps[level]``."""
    shapes = jnp.asarray([m.shape[:2] for m in maps], jnp.int32)
    size = (shapes if map_sizes is None else jnp.stack(map_sizes).astype(jnp.int32))[level]
    corners = round_to_cells(boxes, jnp.asarray(strides, jnp.float32)[level]).astype(jnp.int32)
    longest = 4 * max(max(m.shape[:2]) for m in maps)
    length = jnp.clip(corners[:, 2:] - corners[:, :2] + 1, 1, longest)
    start, end = (
        jnp.clip(corners[:, :2, None] + jnp.asarray(edges)[length], 0, size[:, :, None])
        for edges in _bin_edges(longest, output_size)
    )
    return _pool(maps, _Bins(level, start, end), output_size, tuple(m.shape[:2] for m in maps))


def _bin_edges(longest: int, output_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the bins of boxes of 0 to ``longest`` cells: ``[longest + 1, P]`` each.

    Computed in NumPy, in float32 as in torchvision, because XLA rounds quotients differently: it may multiply
    by a reciprocal, and then 7 bins of 21 cells do not always start at multiples of 3.
    """
    length = np.arange(longest + 1, dtype=np.float32)[:, None]
    bins = np.arange(output_size + 1, dtype=np.float32)
    edges = bins * (length / np.float32(output_size))
    return np.floor(edges[:, :-1]).astype(np.int32), np.ceil(edges[:, 1:]).astype(np.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pool(
    maps: list[Array], bins: _Bins, output_size: int, shapes: tuple[tuple[int, int], ...]
) -> Float[Array, "n p p c"]:
    return _largest_cells([_Cells(m, None) for m in maps], bins, output_size).value


def _pool_forward(
    maps: list[Array], bins: _Bins, output_size: int, shapes: tuple[tuple[int, int], ...]
) -> tuple[Array, Array | None]:
    cells, first = [], 0
    for values in maps:
        height, width, _ = values.shape
        flat_index = first + jnp.arange(height * width, dtype=jnp.int32).reshape(height, width, 1)
        cells.append(_Cells(values, jnp.broadcast_to(flat_index, values.shape)))
        first += height * width
    largest = _largest_cells(cells, bins, output_size)
    return largest.value, largest.flat_index


def _pool_backward(
    output_size: int, shapes: tuple[tuple[int, int], ...], flat_index: Array, gradient: Array
) -> tuple[list[Array], None]:
    """The gradients of the maps, summed in float32; the bins have none."""
    ends = np.cumsum([height * width for height, width in shapes])
    channels = gradient.shape[-1]
    total = jnp.zeros((ends[-1], channels), jnp.float32)
    total = total.at[flat_index, jnp.arange(channels)].add(gradient.astype(jnp.float32), mode="drop")
    parts = jnp.split(total.astype(gradient.dtype), ends[:-1])
    return [part.reshape(*shape, channels) for part, shape in zip(parts, shapes, strict=True)], None


_pool.defvjp(_pool_forward, _pool_backward)


def _largest_cells(cells: list[_Cells], bins: _Bins, output_size: int) -> _Cells:
    """The largest cell of each bin, ``[N P P C]``; an empty bin has value 0 and the index after all cells."""
    table, squares = _make_squares(cells, output_size)
    channels = cells[0].value.shape[-1]
    num_cells = sum(c.value.shape[0] * c.value.shape[1] for c in cells)

    def pool_block(bins: _Bins) -> _Cells:
        steps, locate = _cover(bins, squares)

        def add_square(step: Array, best: _Cells) -> _Cells:
            row = locate(step)
            found = jax.tree.map(lambda t: t.at[row].get(mode="promise_in_bounds"), table)
            return _larger(best, found)

        start = _Cells(
            jnp.full((*steps.shape, channels), -jnp.inf, table.value.dtype),
            None if table.flat_index is None else jnp.full((*steps.shape, channels), num_cells, jnp.int32),
        )
        best = lax.fori_loop(0, batch_max(steps), add_square, start)
        empty = start._replace(value=jnp.zeros_like(start.value))
        return jax.tree.map(lambda a, b: jnp.where(steps[..., None] > 0, a, b), best, empty)

    def pool_in_blocks(bins: _Bins) -> _Cells:
        return in_blocks(pool_block, jnp.max(_cover(bins, squares)[0], axis=(1, 2)), bins)

    return by_platform({"cpu": pool_in_blocks, "default": pool_block}, bins)


def _make_squares(cells: list[_Cells], output_size: int) -> tuple[_Cells, _Squares]:
    """The largest cell of every square of every map, in one ``[T C]`` table, with the squares' positions."""
    tables: list[_Cells] = []
    offset, row_length, max_log_side, rows = [], [], [], 0
    for map_cells in cells:
        # Squares larger than the bins of a box that covers the map are not needed.
        longest_side = -(-min(map_cells.value.shape[:2]) // output_size)
        doublings = min(longest_side.bit_length() - 1, MAX_DOUBLINGS)
        by_side = [map_cells]
        for k in range(doublings):
            by_side.append(_double(by_side[-1], 1 << k))
        side_rows = [square.value.shape[0] * square.value.shape[1] for square in by_side]
        unused = [0] * (MAX_DOUBLINGS - doublings)
        offset.append([rows + sum(side_rows[:k]) for k in range(doublings + 1)] + unused)
        row_length.append([square.value.shape[1] for square in by_side] + unused)
        max_log_side.append(doublings)
        rows += sum(side_rows)
        tables += [jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), square) for square in by_side]
    table = jax.tree.map(lambda *parts: jnp.concatenate(parts), *tables)
    return table, _Squares(*(np.asarray(a, np.int32) for a in (offset, row_length, max_log_side)))


def _double(squares: _Cells, side: int) -> _Cells:
    """The largest cells of squares with sides of ``2 * side`` cells, from those with sides of ``side``."""
    wide = _larger(*(jax.tree.map(lambda a, part=p: a[:, part], squares) for p in _halves(side)))
    return _larger(*(jax.tree.map(lambda a, part=p: a[part], wide) for p in _halves(side)))


def _halves(side: int) -> tuple[slice, slice]:
    return slice(None, -side), slice(side, None)


def _larger(a: _Cells, b: _Cells) -> _Cells:
    """The elementwise larger of two cells; ties go to the lower index."""
    if a.flat_index is None or b.flat_index is None:
        return _Cells(jnp.maximum(a.value, b.value), None)
    is_b = (b.value > a.value) | ((b.value == a.value) & (b.flat_index < a.flat_index))
    return _Cells(jnp.where(is_b, b.value, a.value), jnp.where(is_b, b.flat_index, a.flat_index))


def _cover(bins: _Bins, squares: _Squares) -> tuple[Array, Callable[[Array], Array]]:
    """The number of squares that cover each bin, ``[N P P]``, and a function from a step to table rows.

    The squares are the largest that fit in the bin, laid out in rows from its top left corner; the last of
    each row and column are moved back into the bin. Steps past the last square repeat it.
    """
    top, left = bins.start[:, 0, :, None], bins.start[:, 1, None, :]
    bottom, right = bins.end[:, 0, :, None], bins.end[:, 1, None, :]
    shorter = jnp.minimum(bottom - top, right - left)
    level = bins.level[:, None, None]
    log_side = jnp.minimum(31 - lax.clz(jnp.maximum(shorter, 1)), jnp.asarray(squares.max_log_side)[level])
    side = 1 << log_side
    columns = jnp.maximum((right - left + side - 1) // side, 1)
    steps = jnp.where(shorter > 0, (bottom - top + side - 1) // side * columns, 0)
    offset = jnp.asarray(squares.offset)[level, log_side]
    row_length = jnp.asarray(squares.row_length)[level, log_side]

    def locate(step: Array) -> Array:
        row, column = jnp.divmod(jnp.clip(step, 0, jnp.maximum(steps - 1, 0)), columns)
        y = jnp.minimum(top + row * side, bottom - side)
        x = jnp.minimum(left + column * side, right - side)
        # An empty bin may lie anywhere, and is looked up with the others.
        return jnp.where(steps > 0, offset + y * row_length + x, 0)

    return steps, locate
