"""Greedy non-maximum suppression, exact, with static shapes.

Shapes: N boxes, K outputs.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Int32, Shaped

from mrcnn_jax.ops.boxes import area


def nms(
    boxes: Shaped[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_outputs: int,
    classes: Int[Array, " n"] | None = None,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Indices of the boxes that no better kept box overlaps by more than ``iou_threshold``, best first.

    Also returns which of the ``max_outputs`` indices are valid; the others are 0. Equal scores: lower index
    first. Boxes of different ``classes`` never suppress each other. The result is torchvision's (``nms``,
    ``batched_nms``).
    """
    order = jnp.argsort(-scores, stable=True)
    boxes = boxes.astype(jnp.float32)[order]
    x1, y1, x2, y2 = boxes.T  # one contiguous row per coordinate, for the sake of vector instructions
    areas = area(boxes)
    classes = None if classes is None else classes[order]
    position = jnp.arange(len(order), dtype=jnp.int32)
    end = jnp.int32(len(order))
    threshold = _float32_not_above(iou_threshold)

    def first(alive: Bool[Array, " n"]) -> Int32[Array, ""]:
        return jnp.min(jnp.where(alive, position, end))

    def unfinished(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        _, current, kept = state
        return (current < end) & (kept < max_outputs)

    def keep_current(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        alive, i, kept = state
        width = jnp.maximum(jnp.minimum(x2, x2[i]) - jnp.maximum(x1, x1[i]), 0.0)
        height = jnp.maximum(jnp.minimum(y2, y2[i]) - jnp.maximum(y1, y1[i]), 0.0)
        # The outer maximum changes nothing but keeps the compiler from fusing product and subtraction into
        # one rounding, which would decide pairs at the threshold otherwise than torchvision does.
        intersection = jnp.maximum(width * height, 0.0)
        union = areas[i] + areas - intersection
        suppressed = intersection / jnp.where(union > 0, union, 1.0) > threshold
        if classes is not None:
            suppressed &= classes == classes[i]
        later = position > i
        alive &= ~(suppressed & later)
        return alive, first(alive & later), kept + 1

    alive = valid[order]
    alive, stop, _ = lax.while_loop(unfinished, keep_current, (alive, first(alive), jnp.int32(0)))
    # Kept are those still alive before the first that was not looked at: find the 1st, 2nd, ... of them.
    rank = jnp.cumsum((alive & (position < stop)).astype(jnp.int32))
    wanted = jnp.arange(1, max_outputs + 1, dtype=jnp.int32)
    found = wanted <= rank[-1]
    slot = jnp.searchsorted(rank, wanted)
    return jnp.where(found, order[jnp.where(found, slot, 0)], 0).astype(jnp.int32), found


def _float32_not_above(value: float) -> np.float32:
    """The largest float32 not above ``value``: what float32 exceeds the one exceeds the other."""
    rounded = np.float32(value)
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))
