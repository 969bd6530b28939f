"""Cascade R-CNN (arXiv 1712.00726): each box head begins with the boxes of the one before."""

from functools import partial

import jax
from jax import Array
from jaxtyping import Float, Shaped

from mrcnn_jax.ops.boxes import BoxWeights, clip_boxes, decode_boxes


def refine_boxes(
    boxes: Float[Array, "r 4"],
    deltas: Float[Array, "r 1 4"],
    image_size: Shaped[Array, "2"],
    *,
    weights: BoxWeights,
    scale_limits: str = "above",
) -> Float[Array, "r 4"]:
    """An image's boxes as a class-agnostic head moves them, cut at its border: the next head's regions.

    ``weights`` and ``scale_limits`` are as in ``decode_boxes``. No gradient flows through them, as through
    proposals.
    """
    refined = decode_boxes(deltas[:, 0], boxes, weights, scale_limits=scale_limits)
    return jax.lax.stop_gradient(clip_boxes(refined, image_size))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x: Float[Array, "*n"], factor: float) -> Float[Array, "*n"]:
    """``x``, but its gradient is multiplied by ``factor``.

    With 1 / heads, the maps learn from the mean of the heads' losses, each head from its own (Detectron2).
    """
    return x


def _forward(x: Array, factor: float) -> tuple[Array, None]:
    return x, None


def _backward(factor: float, _: None, gradient: Array) -> tuple[Array]:
    return (factor * gradient,)


scale_gradient.defvjp(_forward, _backward)
