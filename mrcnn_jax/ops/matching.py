"""Which ground truth each anchor or region answers for, and which of them a loss looks at.

Shapes: N anchors or regions, G ground-truth objects.
"""

import enum

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Int32, Key, UInt32


class Assignment(enum.IntEnum):
    """What an anchor or region is to the loss. Rising in what a sampler prefers."""

    IGNORE = 0
    NEGATIVE = 1
    POSITIVE = 2


def match(
    iou: Float[Array, "n g"], valid: Bool[Array, " g"], *, low: float, high: float, keep_best: bool
) -> tuple[Int32[Array, " n"], Int32[Array, " n"]]:
    """The ground truth of highest IoU per anchor ``[N]``, and each anchor's :class:`Assignment` ``[N]``.

    IoU of ``high`` or more is POSITIVE, below ``low`` NEGATIVE, between IGNORE (Faster 3.1.2). With
    ``keep_best`` the anchors that overlap a ground truth most, ties included, are POSITIVE whatever their
    IoU; such an anchor still belongs to the ground truth that it overlaps most itself, as in D2 and
    torchvision. Unlike there, a ground truth that overlaps no anchor keeps none (there it would keep all).

    Columns that are not ``valid`` match nothing. Without valid ground truth all is NEGATIVE, with index 0.
    """
    iou = jnp.where(valid, iou, -1.0)
    gt_index = jnp.argmax(iou, axis=1).astype(jnp.int32)
    best_of_anchor = jnp.max(iou, axis=1)
    positive = best_of_anchor >= high
    if keep_best:
        best_of_gt = jnp.max(iou, axis=0)
        positive |= jnp.any((iou == best_of_gt) & (best_of_gt > 0), axis=1)  # [N G] == [G]
    assignment = jnp.where(
        positive,
        Assignment.POSITIVE,
        jnp.where(best_of_anchor < low, Assignment.NEGATIVE, Assignment.IGNORE),
    )
    return gt_index, assignment.astype(jnp.int32)


def sample(
    key: Key[Array, ""] | UInt32[Array, "2"],
    assignment: Int[Array, " n"],
    *,
    count: int,
    positive_fraction: float,
) -> Int32[Array, " n"]:
    """``assignment`` with all but ``count`` randomly drawn rows set to IGNORE.

    At most ``int(count * positive_fraction)`` of them are POSITIVE, the rest NEGATIVE; where positives lack,
    negatives take their place, and where negatives lack too, fewer than ``count`` remain (Faster 3.1.3, as D2
    and torchvision).
    """
    length = assignment.shape[0]
    # One draw serves both: the two groups have no row in common.
    priority = jax.random.uniform(key, (length,))
    positive = _draw(priority, assignment == Assignment.POSITIVE, int(count * positive_fraction))
    spare = count - jnp.sum(positive < length)
    negative = _draw(priority, assignment == Assignment.NEGATIVE, count)
    negative = jnp.where(jnp.arange(negative.shape[0]) < spare, negative, length)
    sampled = jnp.full((length,), Assignment.IGNORE, jnp.int32)
    sampled = sampled.at[positive].set(Assignment.POSITIVE, mode="drop")
    return sampled.at[negative].set(Assignment.NEGATIVE, mode="drop")


def take_sampled(
    assignment: Int[Array, " n"], *, count: int
) -> tuple[Int32[Array, " count"], Int32[Array, " count"]]:
    """Indices and assignments of ``count`` rows: POSITIVE first, then NEGATIVE, then IGNORE as padding.

    Rows of the same kind keep their order. Every index is in range, that of padding too.
    """
    # In float32, because XLA has a fast top-k on the CPU for it alone; integers would be sorted.
    rank, index = lax.top_k(assignment.astype(jnp.float32), min(count, assignment.shape[0]))
    padding = (0, count - index.shape[0])
    kind = jnp.pad(rank.astype(jnp.int32), padding, constant_values=Assignment.IGNORE)
    return jnp.pad(index, padding), kind


def _draw(priority: Float[Array, " n"], eligible: Bool[Array, " n"], count: int) -> Int32[Array, " k"]:
    """Indices of the ``count`` eligible rows of highest priority; ``n`` where there are too few."""
    length = priority.shape[0]
    best, index = lax.top_k(jnp.where(eligible, priority, -1.0), min(count, length))
    return jnp.where(best >= 0, index, length)
