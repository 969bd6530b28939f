"""Matches anchors or regions to ground truth, and samples those that enter a loss.

Shapes: N anchors or regions, G ground-truth objects.
"""

import enum

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Int32, Key, UInt32


class Assignment(enum.IntEnum):
    """The role of an anchor or region in a loss, in rising order of priority for ``take_sampled``."""

    IGNORE = 0
    NEGATIVE = 1
    POSITIVE = 2


def match(
    iou: Float[Array, "n g"], valid: Bool[Array, " g"], *, low: float, high: float, keep_best: bool
) -> tuple[Int32[Array, " n"], Int32[Array, " n"]]:
    """Each anchor's ground truth of highest IoU ``[N]``, and its :class:`Assignment` ``[N]``.

    An IoU of at least ``high`` is POSITIVE, below ``low`` NEGATIVE, in between IGNORE (Faster R-CNN 3.1.2).
    With ``keep_best``, the anchors that overlap a ground truth most, ties included, are POSITIVE whatever
    their IoU; such an anchor is still matched to the ground truth that it overlaps most itself, as in
    Detectron2 and torchvision. Unlike there, a ground truth that overlaps no anchor keeps none (there it
    would keep all).

    Columns that are not ``valid`` match nothing. Without valid ground truth, all anchors are NEGATIVE with
    index 0.
    """
    iou = jnp.where(valid, iou, -1.0)
    gt_index = jnp.argmax(iou, axis=1).astype(jnp.int32)
    anchor_iou = jnp.max(iou, axis=1)
    positive = anchor_iou >= high
    if keep_best:
        gt_iou = jnp.max(iou, axis=0)
        positive |= jnp.any((iou == gt_iou) & (gt_iou > 0), axis=1)  # [N G] == [G]
    assignment = jnp.where(
        positive,
        Assignment.POSITIVE,
        jnp.where(anchor_iou < low, Assignment.NEGATIVE, Assignment.IGNORE),
    )
    return gt_index, assignment.astype(jnp.int32)


def sample(
    key: Key[Array, ""] | UInt32[Array, "2"],
    assignment: Int[Array, " n"],
    *,
    count: int,
    positive_fraction: float,
) -> Int32[Array, " n"]:
    """``assignment`` with all rows but those of ``sample_rows`` set to IGNORE."""
    index, kind = sample_rows(key, assignment, count=count, positive_fraction=positive_fraction)
    index = jnp.where(kind == Assignment.IGNORE, assignment.shape[0], index)
    return jnp.full_like(assignment, Assignment.IGNORE).at[index].set(kind, mode="drop")


def sample_rows(
    key: Key[Array, ""] | UInt32[Array, "2"],
    assignment: Int[Array, " n"],
    *,
    count: int,
    positive_fraction: float,
) -> tuple[Int32[Array, " s"], Int32[Array, " s"]]:
    """Indices and assignments of ``count`` randomly sampled rows, and of IGNORE as padding.

    At most ``int(count * positive_fraction)`` of them are POSITIVE, the rest NEGATIVE. Negatives replace
    missing positives; if there are too few negatives as well, there are fewer than ``count`` (Faster R-CNN
    3.1.3, as in Detectron2 and torchvision). Every index is in range, including those of padding.
    """
    length = assignment.shape[0]
    # One draw serves both groups, because no row belongs to both.
    priority = jax.random.uniform(key, (length,))
    positive = _draw(priority, assignment == Assignment.POSITIVE, int(count * positive_fraction))
    spare = count - jnp.sum(positive < length)
    negative = _draw(priority, assignment == Assignment.NEGATIVE, count)
    negative = jnp.where(jnp.arange(negative.shape[0]) < spare, negative, length)
    index = jnp.concatenate([positive, negative])
    is_positive = jnp.arange(len(index)) < len(positive)
    kind = jnp.where(is_positive, Assignment.POSITIVE, Assignment.NEGATIVE)
    kind = jnp.where(index < length, kind, Assignment.IGNORE)
    return jnp.minimum(index, length - 1), kind.astype(jnp.int32)


def take_sampled(
    assignment: Int[Array, " n"], *, count: int
) -> tuple[Int32[Array, " count"], Int32[Array, " count"]]:
    """Indices and assignments of ``count`` rows: POSITIVE first, then NEGATIVE, then IGNORE as padding.

    Rows of the same kind keep their order. Every index is in range, including those of padding.
    """
    # In float32, the only type for which XLA has a fast top-k on the CPU; integers would be sorted.
    rank, index = lax.top_k(assignment.astype(jnp.float32), min(count, assignment.shape[0]))
    padding = (0, count - index.shape[0])
    kind = jnp.pad(rank.astype(jnp.int32), padding, constant_values=Assignment.IGNORE)
    return jnp.pad(index, padding), kind


def _draw(priority: Float[Array, " n"], eligible: Bool[Array, " n"], count: int) -> Int32[Array, " k"]:
    """Indices of the ``count`` eligible rows of highest priority, padded with ``n`` if there are fewer."""
    length = priority.shape[0]
    best, index = lax.top_k(jnp.where(eligible, priority, -1.0), min(count, length))
    return jnp.where(best >= 0, index, length)
