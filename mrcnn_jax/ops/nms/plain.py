"""Greedy non-maximum suppression in its textbook form: box by box, best first, with a matrix of all IoUs.

``blocks.py`` gives the same result without that matrix and in fewer steps; tests check that they are equal.

Shapes: N boxes, K outputs.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Int32, Shaped

from mrcnn_jax.ops.boxes import pairwise_iou


def nms(
    boxes: Shaped[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_outputs: int,
    classes: Int[Array, " n"] | None = None,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Indices of the kept boxes, best first, and which of ``max_outputs`` are valid; see ``blocks.nms``."""
    order = jnp.argsort(-scores, stable=True)
    overlap = pairwise_iou(boxes[order], boxes[order]) > float32_not_above(iou_threshold)
    if classes is not None:
        overlap &= classes[order][:, None] == classes[order]
    rank = jnp.arange(len(boxes))

    def decide(i: Array, kept: Bool[Array, " n"]) -> Bool[Array, " n"]:
        suppressed = jnp.any(kept & overlap[i] & (rank < i))
        return kept.at[i].set(kept[i] & ~suppressed)

    kept = lax.fori_loop(0, len(boxes), decide, valid[order])
    (position,) = jnp.nonzero(kept, size=max_outputs, fill_value=0)
    found = jnp.arange(max_outputs) < jnp.sum(kept)
    return jnp.where(found, order[position], 0).astype(jnp.int32), found


def float32_not_above(value: float) -> np.float32:
    """The largest float32 not above ``value``: a float32 exceeds it exactly if it exceeds ``value``."""
    rounded = np.float32(value)
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))
