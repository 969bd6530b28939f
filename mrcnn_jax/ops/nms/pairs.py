"""The comparison of all pairs of boxes, and the survivors that follow from it.

Shapes: N, M boxes.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float32, Int, Int32, Shaped

from mrcnn_jax.ops.boxes import area
from mrcnn_jax.runtime.batching import batch_max

_LANES = 128  # elements of a row in a TPU's vector registers


class Rows(NamedTuple):
    """Boxes with one contiguous row per coordinate, which suits vector instructions."""

    geometry: Float32[Array, "5 n"]  # x1, y1, x2, y2, area
    source: Int32[Array, " n"]  # index among the boxes given
    classes: Int[Array, " n"] | None


def to_rows(
    boxes: Shaped[Array, "n 4"], source: Int32[Array, " n"], classes: Int[Array, " n"] | None
) -> Rows:
    """The boxes as :class:`Rows`, float32, without a gradient."""
    boxes = lax.stop_gradient(boxes.astype(jnp.float32))
    return Rows(jnp.concatenate([boxes.T, area(boxes)[None]]), source, classes)


def all_survivors(rows: Rows, valid: Bool[Array, " n"], threshold: np.float32) -> Bool[Array, " n"]:
    """The ``valid`` boxes that no better survivor suppresses; boxes are given best first.

    A GPU keeps the comparison of all pairs in memory, one byte each. On a TPU, XLA compares them again in
    every round, which by its own estimate is faster than reading them.
    """
    number = jnp.arange(len(valid))
    return survivors(valid, overlap(rows, rows, threshold) & (number[:, None] > number))


def survivors(alive: Bool[Array, " n"], suppresses: Bool[Array, "n n"]) -> Bool[Array, " n"]:
    """The boxes of ``alive`` that no better survivor suppresses.

    ``suppresses[i, j]`` says that box j, if it survives, suppresses the worse box i. Each round decides all
    boxes from the previous round's survivors, until nothing changes. A round settles at least one more box,
    the first that was not settled; in practice a few rounds are enough.
    """

    def changed(state: tuple[Array, Array]) -> Bool[Array, ""]:
        now, last = state
        return batch_max(jnp.any(now != last).astype(jnp.int32)) > 0

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        now, _ = state
        return alive & ~jnp.any(suppresses & now, axis=1), now

    return lax.while_loop(changed, again, (alive, ~alive))[0]


def overlap(rows_a: Rows, rows_b: Rows, threshold: np.float32) -> Bool[Array, "n m"]:
    """Whether two boxes have the same class and an IoU above the threshold."""
    ax1, ay1, ax2, ay2, area_a = rows_a.geometry[:, :, None]
    bx1, by1, bx2, by2, area_b = rows_b.geometry[:, None, :]
    width = _larger(_smaller(ax2, bx2) - _larger(ax1, bx1), 0.0)
    height = _larger(_smaller(ay2, by2) - _larger(ay1, by1), 0.0)
    # The outer maximum has no effect except to keep compilers for GPUs from fusing product and subtraction
    # into one rounding, which would decide pairs at the threshold differently from torchvision. (For a CPU,
    # LLVM fuses a product only if it is used once.)
    intersection = _larger(width * height, 0.0)
    # For two boxes without area this is 0 / 0, which is not above the threshold.
    above = intersection / (area_a + area_b - intersection) > threshold
    if rows_a.classes is None or rows_b.classes is None:
        return above
    return above & (rows_a.classes[:, None] == rows_b.classes)


def first_true(mask: Bool[Array, " n"], count: int) -> Int32[Array, " k"]:
    """Positions of the first ``count`` True elements; in range, but arbitrary, beyond the last of them.

    The position is found by row of 128, then within the row: a scatter would be a loop on a TPU.
    """
    padded = jnp.pad(mask, (0, -len(mask) % _LANES)).reshape(-1, _LANES)
    within = jnp.cumsum(padded, axis=1, dtype=jnp.int32)
    total = within[:, -1]
    until = jnp.cumsum(total)
    rank = jnp.arange(count, dtype=jnp.int32)
    row = jnp.sum(until <= rank[:, None], axis=1, dtype=jnp.int32)
    row = jnp.minimum(row, len(padded) - 1)
    rank -= (until - total)[row]
    lane = jnp.sum(within[row] <= rank[:, None], axis=1, dtype=jnp.int32)
    return jnp.minimum(row * _LANES + lane, len(mask) - 1)


# One instruction each. jnp.minimum and jnp.maximum take more, to propagate NaN; here the area does that.
def _smaller(a: Array, b: Array) -> Array:
    return jnp.where(a < b, a, b)


def _larger(a: Array, b: Array | float) -> Array:
    return jnp.where(a > b, a, b)
