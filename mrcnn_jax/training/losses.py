"""The losses of a batch (paper 3: L = L_cls + L_box + L_mask), normalised over the global batch.

Every function takes the rows of all images together and returns sums and the number to divide them by: those
of the parts of a batch add up to those of the whole. Rows that are not sampled, not positive or not visible
contribute exactly 0.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from mrcnn_jax.ops.boxes import (
    BoxWeights,
    complete_iou,
    decode_boxes,
    distance_iou,
    encode_boxes,
    generalized_iou,
)
from mrcnn_jax.ops.matching import Assignment

_SIMILARITIES = {"giou": generalized_iou, "diou": distance_iou, "ciou": complete_iou}


@dataclasses.dataclass(frozen=True)
class LossSums:
    """The losses of a stage before they are divided by the number of rows that they are a mean over."""

    sums: dict[str, Array]  # float32 scalars by the loss's name
    count: Array | int  # int32 scalar, 0 if there are no rows; an int does not depend on the batch's content

    @jax.named_scope("losses")
    def means(self, count: Array | None = None) -> dict[str, Array]:
        """Each sum divided by the own count or, if it is of a part of the batch, by the whole batch's."""
        divisor = self.count if count is None else count
        normalizer = divisor if isinstance(divisor, int) else jnp.maximum(divisor, 1)
        return {name: loss / normalizer for name, loss in self.sums.items()}


def smooth_l1(x: Float[Array, "*n"], beta: float) -> Float[Array, "*n"]:
    """|x|, quadratic below ``beta`` (Fast R-CNN equation 3); L1 if ``beta`` is 0."""
    x = jnp.abs(x)
    return x if beta == 0 else jnp.where(x < beta, 0.5 * x**2 / beta, x - 0.5 * beta)


@jax.named_scope("losses")
def rpn_loss(
    objectness: Float[Array, "b s"],
    deltas: Float[Array, "b s 4"],
    anchors: Float[Array, "b s 4"],
    assignment: Int[Array, "b s"],
    gt_boxes: Float[Array, "b s 4"],
    *,
    samples: int | None,
    box_weights: BoxWeights,
    beta: float,
    kind: str = "smooth_l1",
) -> LossSums:
    """``rpn_objectness`` and ``rpn_box``, sums over the sampled anchors, which may be all that are given.

    The count is ``samples`` times the number of images (as in Detectron2), or, if ``samples`` is None, the
    number of sampled anchors (as in torchvision). ``kind`` is ``train.rpn_box_loss``.
    """
    positive = assignment == Assignment.POSITIVE
    sampled = positive | (assignment == Assignment.NEGATIVE)
    count = sampled.sum() if samples is None else samples * len(objectness)
    cross_entropy = optax.sigmoid_binary_cross_entropy(objectness, positive.astype(jnp.float32))
    distance = _box_distance(deltas, anchors, gt_boxes, positive, box_weights, beta, kind)
    sums = {"rpn_objectness": _masked(cross_entropy, sampled).sum(), "rpn_box": distance.sum()}
    return LossSums(sums, count)


@jax.named_scope("losses")
def box_loss(
    logits: Float[Array, "n l"],
    deltas: Float[Array, "n k 4"],
    regions: Float[Array, "n 4"],
    assignment: Int[Array, " n"],
    labels: Int[Array, " n"],
    gt_boxes: Float[Array, "n 4"],
    *,
    box_weights: BoxWeights,
    beta: float,
    kind: str = "smooth_l1",
    scores: str = "softmax",
    classes: Bool[Array, "n c"] | None = None,
) -> LossSums:
    """``box_class`` and ``box``, sums over the sampled regions, whose number is the count.

    The deltas are those of each category, or one set for all (K = 1). ``kind`` is ``train.box_loss``, and
    ``scores`` is ``model.box_scores``. With sigmoids, ``box_class`` adds up the binary cross-entropies of all
    categories, or of those that ``classes`` has for a region (Detectron2's ``sigmoid_cross_entropy_loss``).
    """
    positive = assignment == Assignment.POSITIVE
    sampled = positive | (assignment == Assignment.NEGATIVE)
    if scores == "sigmoid":
        cross_entropy = _sigmoid_cross_entropy(logits, labels, classes)
    else:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if deltas.shape[1] == 1:
        own_deltas = deltas[:, 0]
    else:
        category = jnp.maximum(labels - 1, 0)
        own_deltas = jnp.take_along_axis(deltas, category[:, None, None], axis=1)[:, 0]
    distance = _box_distance(own_deltas, regions, gt_boxes, positive, box_weights, beta, kind)
    sums = {"box_class": _masked(cross_entropy, sampled).sum(), "box": distance.sum()}
    return LossSums(sums, sampled.sum())


def _sigmoid_cross_entropy(
    logits: Float[Array, "n l"], labels: Int[Array, " n"], classes: Bool[Array, "n c"] | None
) -> Float[Array, " n"]:
    """Of every region, over the categories of ``classes``, without the background (label and column 0)."""
    targets = jax.nn.one_hot(labels - 1, logits.shape[1] - 1)
    cross_entropy = optax.sigmoid_binary_cross_entropy(logits[:, 1:], targets)
    if classes is not None:
        cross_entropy = jnp.where(classes, cross_entropy, 0.0)
    return cross_entropy.sum(axis=1)


def _box_distance(
    deltas: Float[Array, "*n 4"],
    anchors: Float[Array, "*n 4"],
    gt_boxes: Float[Array, "*n 4"],
    positive: Bool[Array, "*n"],
    box_weights: BoxWeights,
    beta: float,
    kind: str,
) -> Float[Array, "..."]:
    """How far the deltas, or the boxes that they make, are from the ground truth; 0 where not positive."""
    if kind in _SIMILARITIES:
        # In other rows the boxes are made equal: NaN and infinity there would spread in the gradient.
        found = decode_boxes(_masked(deltas, positive), _masked(anchors, positive), box_weights)
        return _masked(1 - _SIMILARITIES[kind](found, _masked(gt_boxes, positive)), positive)
    targets = encode_boxes(gt_boxes, anchors, box_weights)
    return smooth_l1(_masked(deltas - targets, positive), beta)


@jax.named_scope("losses")
def mask_loss(
    logits: Float[Array, "n m m"], targets: Float[Array, "n m m"], positive: Bool[Array, " n"]
) -> LossSums:
    """``mask``: binary cross-entropy for the true category's mask, a mean over the cells of positive regions.

    ``positive`` must be False for regions of objects without a mask.
    """
    targets = _masked(targets, positive)
    cross_entropy = optax.sigmoid_binary_cross_entropy(logits, targets).mean(axis=(1, 2))
    return LossSums({"mask": _masked(cross_entropy, positive).sum()}, positive.sum())


@jax.named_scope("losses")
def softmax_mask_loss(
    log_probabilities: Float[Array, "n m m 2"], targets: Float[Array, "n m m"], positive: Bool[Array, " n"]
) -> LossSums:
    """``mask``: cross-entropy over all classes (paper table 2b), a mean over the cells of positive regions.

    ``log_probabilities`` are those of the region's label and of the background. A cell's class is the label
    where its target is 1, and the background where it is 0; a target in between is the label's share.
    ``positive`` must be False for regions of objects without a mask.
    """
    targets = _masked(targets, positive)
    of_label, of_background = log_probabilities[..., 0], log_probabilities[..., 1]
    cross_entropy = -(targets * of_label + (1 - targets) * of_background).mean(axis=(1, 2))
    return LossSums({"mask": _masked(cross_entropy, positive).sum()}, positive.sum())


@jax.named_scope("losses")
def keypoint_loss(
    logits: Float[Array, "n m m k"],
    cells: Int[Array, "n k"],
    visible: Bool[Array, "n k"],
    *,
    count: int | None = None,
) -> LossSums:
    """``keypoint``: cross-entropy over the cells of a region, a mean over the visible keypoints (paper 5).

    ``count`` divides their sum in place of the number of visible keypoints.
    """
    n, m, _, k = logits.shape
    over_cells = logits.reshape(n, m * m, k).swapaxes(1, 2)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(over_cells, cells)
    return LossSums(
        {"keypoint": _masked(cross_entropy, visible).sum()}, visible.sum() if count is None else count
    )


def _masked(x: Array, keep: Array) -> Array:
    """``x`` where ``keep``, else 0. A product would turn infinities into NaN, in the gradient too."""
    return jnp.where(keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim)), x, 0.0)
