"""Pools regions by the method that the config names: RoIAlign, RoIPool or RoIWarp (paper table 2c)."""

from collections.abc import Callable
from typing import Any

from jax import Array
from jaxtyping import Float

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.ops.roi_align import multilevel_roi_align, roi_align
from mrcnn_jax.ops.roi_pool import multilevel_roi_pool, roi_pool
from mrcnn_jax.ops.roi_warp import multilevel_roi_warp, roi_warp

_OF_ONE_MAP: dict[str, Callable[..., Array]] = {"align": roi_align, "pool": roi_pool, "warp": roi_warp}
_OF_A_PYRAMID: dict[str, Callable[..., Array]] = {
    "align": multilevel_roi_align,
    "pool": multilevel_roi_pool,
    "warp": multilevel_roi_warp,
}


def pool_regions(
    maps: dict[str, Array],
    sizes: dict[str, Array],
    boxes: Float[Array, "r 4"],
    *,
    strides: dict[str, int],
    output_size: int,
    config: ModelConfig,
) -> Float[Array, "r p p c"]:
    """Features of ``output_size x output_size`` bins of each box of an image, by ``config.roi_pooling``.

    ``boxes`` are in pixels, ``sizes`` the rows and columns of ``maps`` that belong to the image, and
    ``strides`` the levels to pool from, in pixels per cell: those of a pyramid with features "fpn", else one.
    """
    method, _, reduction = config.roi_pooling.partition("_")
    settings: dict[str, Any] = {"output_size": output_size}
    if method != "pool":
        settings |= {"sampling_ratio": config.roi_sampling_ratio, "reduction": reduction or "mean"}
    if method == "align":
        settings["aligned"] = config.roi_aligned
    if config.features == "fpn":
        return _OF_A_PYRAMID[method](
            {level: maps[level] for level in strides},
            boxes,
            canonical_size=config.roi_canonical_size,
            level_rule=config.roi_level_rule,
            map_sizes=sizes,
            **settings,
        )
    ((level, stride),) = strides.items()
    return _OF_ONE_MAP[method](maps[level], boxes, stride=float(stride), map_size=sizes[level], **settings)
