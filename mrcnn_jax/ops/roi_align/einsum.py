"""RoIAlign as matmuls: each region's row and column weights times the whole map.

Many times the arithmetic of gathering cells, but dense, and the gradient has no scatter.

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region, K points of a bin along
an axis, S samples along an axis: P, or P x K for a maximum over the points.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from mrcnn_jax.ops.roi_align.samples import Regions, Settings, interpolation, per_point, sample_matrix
from mrcnn_jax.runtime.blocks import divisor, split

BLOCK = 64  # regions at a time: with a 200 x 336 map, 256 channels and 7 bins they take 92 MB per image


def pool(maps: list[Array], regions: Regions, *, settings: Settings) -> tuple[Array, Array | None]:
    """The features ``[N P P C]`` in float32 and, for a maximum, its sampling point's row-major index."""

    def pool_block(regions: Regions) -> tuple[Array, Array | None]:
        samples = jnp.float32(0.0)
        for level, values in enumerate(maps):
            rows, columns = _matrices(regions, level, values.shape[:2], settings)
            part = jnp.einsum("ntw,hwc->nthc", columns, values.astype(jnp.float32), precision="highest")
            samples = samples + jnp.einsum("nsh,nthc->nstc", rows, part, precision="highest")
        if settings.reduction == "mean":
            return per_point(samples, regions), None
        size, ratio = settings.output_size, settings.sampling_ratio
        points = samples.reshape(-1, size, ratio, size, ratio, samples.shape[-1])
        points = points.transpose(0, 1, 3, 2, 4, 5).reshape(-1, size, size, ratio**2, samples.shape[-1])
        return jnp.max(points, axis=3), jnp.argmax(points, axis=3).astype(jnp.int32)

    block = divisor(regions.level.shape[0], BLOCK)
    pooled = lax.map(pool_block, split(regions, block))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), pooled)


def scatter(
    regions: Regions,
    point_gradient: Array,
    max_point: Array | None,
    *,
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
) -> list[Array]:
    """The gradients of the maps, given the gradient per sampling point (mean) or at ``max_point`` (max).

    ``point_gradient`` and ``max_point`` are ``[N P P C]``.
    """

    def add_block(
        totals: list[Array], operands: tuple[Regions, Array, Array | None]
    ) -> tuple[list[Array], None]:
        regions, point_gradient, max_point = operands
        if max_point is not None:
            point_gradient = _at_points(point_gradient, max_point, settings.sampling_ratio)
        added = []
        for level, total in enumerate(totals):
            rows, columns = _matrices(regions, level, total.shape[:2], settings)
            part = jnp.einsum("ntw,nstc->nswc", columns, point_gradient, precision="highest")
            added.append(total + jnp.einsum("nsh,nswc->hwc", rows, part, precision="highest"))
        return added, None

    zeros = [jnp.zeros((*shape, point_gradient.shape[-1]), jnp.float32) for shape in shapes]
    blocks = split((regions, point_gradient, max_point), divisor(regions.level.shape[0], BLOCK))
    return lax.scan(add_block, zeros, blocks)[0]


def _at_points(point_gradient: Array, max_point: Array, ratio: int) -> Array:
    """``point_gradient`` at each bin's ``max_point``, 0 elsewhere: ``[N P P C]`` to ``[N S S C]``."""
    points = jnp.arange(ratio**2).reshape(ratio, 1, ratio, 1)
    spread = jnp.where(max_point[:, :, None, :, None] == points, point_gradient[:, :, None, :, None], 0.0)
    count, size, channels = point_gradient.shape[0], point_gradient.shape[1], point_gradient.shape[3]
    return spread.reshape(count, size * ratio, size * ratio, channels)


def _matrices(
    regions: Regions, level: int, shape: tuple[int, ...], settings: Settings
) -> tuple[Array, Array]:
    """Row weights ``[N S H]``, 0 for regions of other levels, and column weights ``[N S W]``."""
    size = settings.output_size
    if settings.reduction == "mean":
        rows, columns = (interpolation(regions, axis, size, shape[axis]) for axis in (0, 1))
    else:
        point = jnp.arange(settings.sampling_ratio)
        rows, columns = (
            sample_matrix(regions, axis, size, shape[axis], point).reshape(
                -1, size * settings.sampling_ratio, shape[axis]
            )
            for axis in (0, 1)
        )
    return jnp.where((regions.level == level)[:, None, None], rows, 0.0), columns
