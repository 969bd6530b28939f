"""RoIAlign as the paper describes it, in ordinary JAX with ordinary autodiff (section 3, figure 3).

Tests check that the fast forms beside this file give equal results and gradients.

Shapes: H x W cells of a feature map, C channels, N boxes, P x P bins of a box, K x K points of a bin.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import assign_levels, level_numbers


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Shaped[Array, "n 4"],
    *,
    stride: float,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    map_size: Int[Array, "2"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "n p p c"]:
    """Each bin's mean or "max" over its sampling points; arguments as for ``forms.roi_align``."""
    size = jnp.array(features.shape[:2]) if map_size is None else map_size
    most_points = sampling_ratio or -(-2 * max(features.shape[:2]) // output_size)  # K
    bins, points = jnp.arange(output_size)[:, None], jnp.arange(most_points)

    def points_along(low: Array, high: Array, cells: Array) -> tuple[Array, Array]:
        """Positions of every bin's points along an axis, ``[P K]``, and how many of the K a bin has."""
        side = high - low if aligned else jnp.maximum(high - low, 1.0)
        count = sampling_ratio or -(-jnp.clip(jnp.ceil(side).astype(int), 0, 2 * cells) // output_size)
        within_bin = (points + 0.5) / jnp.maximum(count, 1)
        return low + (bins + within_bin) * side / output_size, jnp.asarray(count)

    def pool(box: Float[Array, "4"]) -> Float[Array, "p p c"]:
        x1, y1, x2, y2 = box / stride - (0.5 if aligned else 0.0)
        y, rows = points_along(y1, y2, size[0])
        x, columns = points_along(x1, x2, size[1])
        sampled = bilinear(features.astype(jnp.float32), y.reshape(-1), x.reshape(-1), size)
        sampled = sampled.reshape(output_size, most_points, output_size, most_points, -1).swapaxes(1, 2)
        sampled = sampled.reshape(output_size, output_size, most_points**2, -1)
        counts = ((points < rows)[:, None] & (points < columns)).reshape(-1, 1)  # [K*K 1]
        if reduction == "mean":
            return jnp.sum(sampled, axis=2, where=counts) / jnp.maximum(rows * columns, 1)
        first = jnp.argmax(jnp.where(counts, sampled, -jnp.inf), axis=2, keepdims=True)  # first on ties
        return jnp.take_along_axis(jnp.where(counts, sampled, 0.0), first, axis=2)[:, :, 0]

    boxes = jax.lax.stop_gradient(boxes.astype(jnp.float32))
    return jax.vmap(pool)(boxes).astype(features.dtype)


def bilinear(
    features: Float[Array, "h w c"], y: Float[Array, " y"], x: Float[Array, " x"], size: Int[Array, "2"]
) -> Float[Array, "y x c"]:
    """The map at every row position ``y`` and column position ``x``, from the four cells around each point.

    A point up to one cell outside the map takes the value at its edge; any other point outside is 0.
    """
    inside = ((y >= -1) & (y <= size[0]))[:, None] & (x >= -1) & (x <= size[1])
    y, x = jnp.clip(y, 0, size[0] - 1), jnp.clip(x, 0, size[1] - 1)
    top, left = y.astype(int), x.astype(int)
    bottom, right = jnp.minimum(top + 1, size[0] - 1), jnp.minimum(left + 1, size[1] - 1)
    down, along = (y - top)[:, None, None], (x - left)[:, None]
    above = (1 - along) * features[top][:, left] + along * features[top][:, right]
    below = (1 - along) * features[bottom][:, left] + along * features[bottom][:, right]
    return jnp.where(inside[..., None], (1 - down) * above + down * below, 0)


def multilevel_roi_align(
    features: dict[str, Float[Array, "_ _ c"]],
    boxes: Shaped[Array, "n 4"],
    *,
    canonical_size: float = 224.0,
    level_rule: str = "detectron2",
    map_sizes: dict[str, Int[Array, "2"]] | None = None,
    **settings: Any,
) -> Float[Array, "n p p c"]:
    """:func:`roi_align` of each box on its pyramid level; arguments as for ``forms.multilevel_roi_align``."""
    levels = level_numbers(features)
    level = assign_levels(
        boxes, min_level=levels[0], max_level=levels[-1], canonical_size=canonical_size, rule=level_rule
    )
    pooled = [
        roi_align(
            features[f"p{k}"],
            boxes,
            stride=2.0**k,
            map_size=None if map_sizes is None else map_sizes[f"p{k}"],
            **settings,
        )
        for k in levels
    ]
    return jnp.stack(pooled)[level - levels[0], jnp.arange(len(boxes))]
