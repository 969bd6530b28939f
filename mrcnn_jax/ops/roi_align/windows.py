"""RoIAlign on the cells around each region, and its gradient, as kernels for a TPU.

A region's features are the sum of matmuls of its weights with the windows of cells that cover it, usually one
or two. The gradient goes the other way: in each window of a map it is the sum of the matmuls of the regions
that touch the window. So nothing is scattered, and no result depends on an order of execution. While a kernel
multiplies one operand, it copies the next from main memory, and it computes weights where it needs them.

Shapes: B images, H x W cells of a map, C channels, N regions of an image, P x P bins of a region.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mrcnn_jax.ops.roi_align.samples import Regions, Settings, point_positions
from mrcnn_jax.runtime.batching import merged

# The sides of a window. Regions of up to 28 cells, for which a pyramid's levels are, fit into its width, even
# if it has to begin ALIGNMENT - 1 columns before them, and into one or two of its heights. The width is a
# multiple of a register's rows, which are 16 in bfloat16.
HEIGHT, WIDTH = 16, 48
ALIGNMENT = 8  # columns: a copy begins with a tile of 8 columns and 128 channels, as maps are stored

# A window's channels that a kernel holds at a time. With the 2048 of C5 the gradient takes 18.9 of the 16 MB
# that a v5e's compiler gives to it, and so does pooling 14 x 14 bins of float32.
CHANNELS = 1024

_FAR = 1e9  # at this position are cells that do not count, at its negative such points: they share no weight


class _Region(NamedTuple):
    """The numbers of a region, in a TPU's scalar memory; axes are y and x."""

    level: Array
    before: Array  # windows of all regions before it
    first: tuple[Array, Array]  # cell where its first window begins
    windows: tuple[Array, Array]  # how many cover it
    points: tuple[Array, Array]
    size: tuple[Array, Array]  # of the image's part of its map
    limit: tuple[Array, Array]  # of the cells where a copy may begin
    start: tuple[Array, Array]
    bin_size: tuple[Array, Array]


def pool(
    maps: list[Array], regions: Regions, *, settings: Settings, interpret: bool = False
) -> tuple[Array, None]:
    """The features ``[N P P C]`` in the type of the maps, each bin the mean of its points."""
    run = functools.partial(_pool, settings=settings, interpret=interpret)
    return merged(_as_branch(_by_channels(run)))(regions, maps), None


def scatter(
    regions: Regions,
    gradient: Array,
    max_point: None,
    *,
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    interpret: bool = False,
) -> list[Array]:
    """The gradients of the maps in the type of ``gradient``, which is ``[N P P C]``."""
    run = functools.partial(_scatter, settings=settings, shapes=shapes, interpret=interpret)
    return merged(_as_branch(_by_channels(run)))(regions, gradient)


def _by_channels(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run``, of regions and arrays ``[... C]``, on at most ``CHANNELS`` channels at a time."""

    def run_parts(regions: Regions, arrays: Any) -> Any:
        count = jax.tree.leaves(arrays)[0].shape[-1]
        if count <= CHANNELS:
            return run(regions, arrays)

        def run_from(channel: int) -> Any:
            return run(regions, jax.tree.map(lambda a: a[..., channel : channel + CHANNELS], arrays))

        parts = map(run_from, range(0, count, CHANNELS))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *parts)

    return run_parts


def _as_branch(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run``, of regions and other arrays, taken as one branch of two: the other returns zeros.

    The branch makes the kernels a computation apart. XLA fills a TPU's registers with strips of columns where
    there are few images, but if a kernel follows in the same computation, it leaves half of the convolutions
    as they are: by its own estimate one image's backbone takes 18.3 ms on a v5e then, else 8.5.
    """

    def run_if_any(regions: Regions, *operands: Any) -> Any:
        results = jax.eval_shape(run, regions, *operands)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), results)
        return lax.cond(jnp.any(regions.map_size > 0), run, lambda *_: zeros, regions, *operands)

    return run_if_any


def _pool(regions: Regions, maps: list[Array], *, settings: Settings, interpret: bool) -> Array:
    """The features ``[B N P P C]`` of ``maps`` ``[B H W C]`` and ``regions`` ``[B N ...]``."""
    batch, count, channels, dtype = *regions.level.shape, maps[0].shape[-1], maps[0].dtype
    size = settings.output_size
    padded = [_pad(m) for m in maps]
    places = _places(size)
    kernel = functools.partial(_pool_kernel, settings=settings)
    pooled = pl.pallas_call(
        lambda integers, numbers, *refs: kernel((integers, numbers), refs[:4], refs[4:-3], *refs[-3:]),
        grid=(batch, count),
        in_specs=[
            *_scalar_specs(count),
            *(pl.BlockSpec(a.shape, lambda *_: (0, 0)) for a in places),
            *[pl.BlockSpec(memory_space=pltpu.HBM)] * len(padded),
        ],
        out_specs=pl.BlockSpec((None, None, size**2, channels), lambda image, region: (image, region, 0, 0)),
        scratch_shapes=[
            pltpu.VMEM((2, HEIGHT, WIDTH, channels), dtype),
            pltpu.SemaphoreType.DMA((2,)),
        ],
        out_shape=jax.ShapeDtypeStruct((batch, count, size**2, channels), dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="roi_align",
    )(*_scalars(regions, [(m.shape[1], m.shape[2]) for m in padded], settings), *places, *padded)
    return pooled.reshape(batch, count, size, size, channels)


def _pool_kernel(
    scalars: Any,
    places: Any,
    maps: Any,
    pooled: Any,
    windows: Any,
    arrived: Any,
    *,
    settings: Settings,
) -> None:
    """The features of one region, ``pooled`` ``[P*P C]``. Two ``windows`` are filled and used in turn."""
    image, number, regions = pl.program_id(0), pl.program_id(1), pl.num_programs(1)
    region = _region(scalars, number)
    count = region.windows[0] * region.windows[1]

    def copy(number: Any, index: Any, slot: Any) -> None:
        region = _region(scalars, number)
        y, x = _begin(region, _corner(region, index))
        for level, features in enumerate(maps):

            @pl.when(region.level == level)
            def _start(features: Any = features) -> None:
                source = features.at[image, pl.ds(y, HEIGHT), pl.ds(pl.multiple_of(x, ALIGNMENT), WIDTH)]
                pltpu.make_async_copy(source, windows.at[slot], arrived.at[slot]).start()

    @pl.when(number == 0)
    def _first() -> None:
        copy(0, 0, 0)

    def add_window(index: Array, total: Array) -> Array:
        slot = lax.rem(region.before + index, 2)
        ends_region = index == count - 1

        @pl.when(jnp.logical_not(ends_region & (number == regions - 1)))
        def _next() -> None:
            copy(number + jnp.where(ends_region, 1, 0), jnp.where(ends_region, 0, index + 1), 1 - slot)

        corner = _corner(region, index)
        weight = _weights(region, places, corner, _begin(region, corner), settings)
        any_source = maps[0].at[0, pl.ds(0, HEIGHT), pl.ds(0, WIDTH)]
        pltpu.make_async_copy(any_source, windows.at[slot], arrived.at[slot]).wait()
        return total + _matmul(weight, windows[slot].reshape(HEIGHT * WIDTH, -1))

    total = lax.fori_loop(0, count, add_window, jnp.zeros(pooled.shape, jnp.float32))
    pooled[...] = (total / _point_count(region)).astype(pooled.dtype)


def _scatter(
    regions: Regions,
    gradient: Array,
    *,
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    interpret: bool,
) -> list[Array]:
    """The gradients of the maps ``[B H W C]``, given ``regions`` and ``gradient`` ``[B N ...]``."""
    batch, count, size, _, channels = gradient.shape
    scalars, bins = _scalars(regions, shapes, settings), gradient.reshape(batch, count, size**2, channels)
    first, last = _extent(regions, settings)
    places = _places(size)
    kernel = functools.partial(_scatter_kernel, settings=settings)
    gradients = []
    for level, shape in enumerate(shapes):
        rows, columns = (-(-cells // side) for cells, side in zip(shape, (HEIGHT, WIDTH), strict=True))
        touches = _between(jnp.arange(rows), first[..., 0] // HEIGHT, last[..., 0] // HEIGHT)[:, :, None]
        touches &= _between(jnp.arange(columns), first[..., 1] // WIDTH, last[..., 1] // WIDTH)[:, None]
        touches &= (regions.level == level)[:, None, None]
        touches = touches.reshape(batch, rows * columns, count)
        # The sort is stable, so the regions that touch a window come first, in their order.
        order = jnp.argsort(~touches, axis=-1).astype(jnp.int32).reshape(batch, rows, columns, 1, count)
        counts = jnp.sum(touches, axis=-1, dtype=jnp.int32).reshape(batch, rows, columns)
        gradients.append(
            pl.pallas_call(
                lambda integers, numbers, *refs: kernel((integers, numbers), refs[:4], *refs[4:]),
                grid=(batch, rows, columns),
                in_specs=[
                    *_scalar_specs(count),
                    *(pl.BlockSpec(a.shape, lambda *_: (0, 0)) for a in places),
                    pl.BlockSpec(
                        (None, rows, columns), lambda image, y, x: (image, 0, 0), memory_space=pltpu.SMEM
                    ),
                    pl.BlockSpec(
                        (None, None, None, 1, count),
                        lambda image, y, x: (image, y, x, 0, 0),
                        memory_space=pltpu.SMEM,
                    ),
                    pl.BlockSpec(memory_space=pltpu.HBM),
                ],
                out_specs=pl.BlockSpec((None, HEIGHT, WIDTH, channels), lambda image, y, x: (image, y, x, 0)),
                scratch_shapes=[
                    pltpu.VMEM((2, size**2, channels), gradient.dtype),
                    pltpu.SemaphoreType.DMA((2,)),
                    pltpu.VMEM((HEIGHT * WIDTH, channels), jnp.float32),
                ],
                out_shape=jax.ShapeDtypeStruct((batch, *shape, channels), gradient.dtype),
                compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
                interpret=interpret,
                name="roi_align_gradient",
            )(*scalars, *places, counts, order, bins)
        )
    return gradients


def _scatter_kernel(
    scalars: Any,
    places: Any,
    counts: Any,
    order: Any,
    gradient: Any,
    window: Any,
    bins: Any,
    arrived: Any,
    total: Any,
    *,
    settings: Settings,
) -> None:
    """The gradient of one ``window``. The ``bins`` of two regions are filled and used in turn."""
    image, row, column = (pl.program_id(axis) for axis in range(3))
    count = counts[row, column]
    corner = row * HEIGHT, column * WIDTH

    def copy(index: Any, slot: Any) -> Any:
        return pltpu.make_async_copy(gradient.at[image, order[0, index]], bins.at[slot], arrived.at[slot])

    @pl.when(count > 0)
    def _first() -> None:
        copy(0, 0).start()

    total[...] = jnp.zeros(total.shape, jnp.float32)

    @pl.loop(0, count)
    def _add_region(index: Array) -> None:
        slot = lax.rem(index, 2)

        @pl.when(index + 1 < count)
        def _next() -> None:
            copy(index + 1, 1 - slot).start()

        region = _region(scalars, order[0, index])
        weight = _weights(region, places, corner, corner, settings) * (1.0 / _point_count(region))
        copy(index, slot).wait()
        total[...] += _matmul(weight, bins[slot], transposed=True)

    window[...] = total[...].reshape(window.shape).astype(window.dtype)


def _pad(features: Array) -> Array:
    """``features`` ``[B H W C]`` with at least one window of cells, and columns to which copies can align."""
    height, width = features.shape[1:3]
    rows = max(HEIGHT - height, 0)
    columns = max(-(-width // ALIGNMENT) * ALIGNMENT, WIDTH) - width
    return jnp.pad(features, ((0, 0), (0, rows), (0, columns), (0, 0))) if rows or columns else features


def _places(size: int) -> list[Array]:
    """Rows and columns in float32: of ``size**2`` bins ``[bins 1]`` and a window's cells ``[1 cells]``."""
    bins, cells = (
        np.mgrid[:height, :width].reshape(2, -1) for height, width in ((size, size), (HEIGHT, WIDTH))
    )
    return [jnp.asarray(a, jnp.float32) for a in (*bins[:, :, None], *cells[:, None])]


def _between(values: Array, first: Array, last: Array) -> Array:
    return (values[:, None] >= first[:, None]) & (values[:, None] <= last[:, None])


def _extent(regions: Regions, settings: Settings) -> tuple[Array, Array]:
    """The first and the last cell with a weight, along each axis: ``[B N 2]``."""
    end = regions.start + regions.bin_size * settings.output_size
    low, high = (
        # Clamped as integers too, so that a padding row's NaN cannot become an index outside the map.
        jnp.clip(jnp.clip(p, 0.0, regions.map_size - 1).astype(jnp.int32), 0, regions.map_size - 1)
        for p in (jnp.minimum(regions.start, end), jnp.maximum(regions.start, end))
    )
    return low, jnp.minimum(high + 1, regions.map_size - 1)


def _scalars(regions: Regions, shapes: Sequence[tuple[int, int]], settings: Settings) -> tuple[Array, Array]:
    """The numbers of :class:`_Region` as rows ``[B fields N]``, int32 and float32, for maps of ``shapes``."""
    first, last = _extent(regions, settings)
    alignment, sides = np.array([1, ALIGNMENT]), np.array([HEIGHT, WIDTH])
    first = first // alignment * alignment
    windows = (last - first) // sides + 1
    count = windows[..., 0] * windows[..., 1]
    before = jnp.cumsum(count, axis=-1) - count
    limit = (jnp.asarray(shapes) - sides)[regions.level]
    integers = [regions.level[..., None], before[..., None], first, windows, regions.points, regions.map_size]
    return (
        jnp.concatenate([*integers, limit], axis=-1).astype(jnp.int32).swapaxes(1, 2),
        jnp.concatenate([regions.start, regions.bin_size], axis=-1).swapaxes(1, 2),
    )


def _scalar_specs(count: int) -> list[pl.BlockSpec]:
    """The blocks of :func:`_scalars`: those of an image at a time."""
    return [
        pl.BlockSpec((None, rows, count), lambda image, *_: (image, 0, 0), memory_space=pltpu.SMEM)
        for rows in (12, 4)
    ]


def _region(scalars: Any, number: Any) -> _Region:
    integers, numbers = scalars
    pairs = [(integers[k, number], integers[k + 1, number]) for k in range(0, 12, 2)]
    pairs += [(numbers[k, number], numbers[k + 1, number]) for k in (0, 2)]
    return _Region(*pairs[0], *pairs[1:])


def _corner(region: _Region, index: Any) -> tuple[Array, Array]:
    """The cell where a region's window begins; its windows are indexed in row-major order."""
    row = lax.div(index, region.windows[1])
    return region.first[0] + row * HEIGHT, region.first[1] + (index - row * region.windows[1]) * WIDTH


def _begin(region: _Region, corner: tuple[Array, Array]) -> tuple[Array, Array]:
    """The cell where a window's copy begins: before its ``corner`` if it would otherwise leave the map."""
    return jnp.minimum(corner[0], region.limit[0]), jnp.minimum(corner[1], region.limit[1])


def _point_count(region: _Region) -> Array:
    return jnp.maximum(region.points[0] * region.points[1], 1).astype(jnp.float32)


def _weights(
    region: _Region, places: Any, corner: tuple[Any, Any], begin: tuple[Any, Any], settings: Settings
) -> Array:
    """The total weight of each cell of a window over the points of each bin.

    The window begins at ``begin``; cells before its ``corner`` belong to another window, and have no weight.
    ``places`` are the rows and columns of bins and of cells.
    """
    weight = []
    for axis in (0, 1):
        bins, cells = places[axis][...], places[2 + axis][...] + begin[axis].astype(jnp.float32)
        cells = jnp.where(cells < corner[axis].astype(jnp.float32), _FAR, cells)

        def add_point(
            point: Any, total: Array, axis: int = axis, bins: Array = bins, cells: Array = cells
        ) -> Array:
            position, counts = point_positions(
                region.start[axis], region.bin_size[axis], region.points[axis], region.size[axis], bins, point
            )
            position = jnp.where(counts, position, -_FAR)
            return total + jnp.maximum(1.0 - jnp.abs(position - cells), 0.0)

        zeros = jnp.zeros(jnp.broadcast_shapes(bins.shape, cells.shape), jnp.float32)
        ratio = settings.sampling_ratio
        points = ratio or region.points[axis]
        weight.append(lax.fori_loop(0, points, add_point, zeros, unroll=bool(ratio) or None))
    return weight[0] * weight[1]


def _matmul(weight: Array, values: Array, *, transposed: bool = False) -> Array:
    """``weight @ values``, or ``weight.T @ values``, in float32.

    The float32 weights of bfloat16 values are split into two in bfloat16.
    """
    contracted = (((0 if transposed else 1,), (0,)), ((), ()))
    dot = functools.partial(lax.dot_general, dimension_numbers=contracted, preferred_element_type=jnp.float32)
    if values.dtype != jnp.bfloat16:
        return dot(weight, values, precision="highest")
    high = weight.astype(jnp.bfloat16)
    return dot(high, values) + dot((weight - high.astype(jnp.float32)).astype(jnp.bfloat16), values)
