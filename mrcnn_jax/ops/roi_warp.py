"""RoIWarp: bilinear samples of a region whose corners were rounded to cells (Mask R-CNN, table 2c).

The method of Multi-task Network Cascades (MNC, arXiv 1512.04412), as Mask R-CNN compares it: it samples as
RoIAlign does, but rounds the region first, as RoIPool does. So it is as misaligned as RoIPool.

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region.

Mask R-CNN says only that RoIWarp quantises the region "just like RoIPool". Decided here:

- The region consists of the very cells that RoIPool pools, the last one included, from edge to edge: with
  cell k centred at k, from half a cell before the first to half a cell after the last. So RoIPool and RoIWarp
  differ only in how they pool the same cells. MNC's code samples from the first cell's centre to the last
  one's, which is a cell less.
- The region is divided into bins, and bins into points, as in RoIAlign, without further rounding. A bin is
  the mean or the maximum of its points. MNC samples one point of each cell in a grid twice as fine, at its
  corner, and then takes maxima of 2 x 2: closest to that is the maximum with ``sampling_ratio`` 2.
- Boxes get no gradient, although MNC trains through them: as in RoIAlign here, and in Faster R-CNN.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import maps_and_levels
from mrcnn_jax.ops.roi_align.forms import align_on_maps
from mrcnn_jax.ops.roi_align.samples import Settings
from mrcnn_jax.ops.roi_pool import round_to_cells


def roi_warp(
    features: Float[Array, "h w c"],
    boxes: Shaped[Array, "n 4"],
    *,
    stride: float,
    output_size: int,
    sampling_ratio: int,
    map_size: Int[Array, "2"] | None = None,
    reduction: str = "mean",
    form: str | None = None,
) -> Float[Array, "n p p c"]:
    """Features of ``output_size x output_size`` bins of the whole cells that each box is rounded to.

    ``boxes`` are in pixels, ``stride`` is the pixels per cell of ``features``. Corners are rounded to whole
    cells as in :func:`~mrcnn_jax.ops.roi_pool.roi_pool`: halves away from 0, the last cell belongs to the
    box, and a box has at least one. These cells are sampled as by
    :func:`~mrcnn_jax.ops.roi_align.roi_align`, which describes the other arguments, the result and the
    errors: a box from cell a to cell b gives what ``aligned`` RoIAlign gives for the box from
    ``a * stride`` to ``(b + 1) * stride``. Points more than one cell outside the map contribute 0.
    """
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    sizes = None if map_size is None else [map_size]
    settings = Settings(output_size, sampling_ratio, reduction, form)
    return _warp([features], [stride], sizes, level, boxes, settings)


def multilevel_roi_warp(
    features: dict[str, Float[Array, "_ _ c"]],
    boxes: Shaped[Array, "n 4"],
    *,
    output_size: int,
    sampling_ratio: int,
    canonical_size: float = 224.0,
    level_rule: str = "detectron2",
    map_sizes: dict[str, Int[Array, "2"]] | None = None,
    reduction: str = "mean",
    form: str | None = None,
) -> Float[Array, "n p p c"]:
    """:func:`roi_warp` of each box on the pyramid level that :func:`assign_levels` gives it, not yet rounded.

    ``features`` and ``map_sizes`` (see ``roi_align``) are keyed ``"p2"``, ``"p3"``, ... without gaps; level k
    has a stride of ``2**k`` pixels. Raises ``ValueError`` for keys of another form, or with gaps.
    """
    placed = maps_and_levels(features, map_sizes, boxes, canonical_size=canonical_size, rule=level_rule)
    return _warp(*placed, boxes, Settings(output_size, sampling_ratio, reduction, form))


def _warp(
    maps: list[Array],
    strides: list[float],
    map_sizes: list[Array] | None,
    level: Array,
    boxes: Array,
    settings: Settings,
) -> Array:
    """RoIWarp of each box on ``maps[level]``."""
    stride = jnp.asarray(strides, jnp.float32)[level]
    cells = round_to_cells(boxes, stride)
    first, last = cells[:, :2], jnp.maximum(cells[:, :2], cells[:, 2:])
    rounded = jnp.concatenate([first, last + 1], axis=1)[:, [1, 0, 3, 2]] * stride[:, None]
    return align_on_maps(maps, strides, map_sizes, level, rounded, settings, aligned=True)
