"""Training targets of the anchors and regions of one image (Faster R-CNN 3.1.2, paper 3.1)."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Int32, Key

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.boxes import is_nonempty, pairwise_ioa, pairwise_iou
from mrcnn_jax.ops.matching import Assignment, match, sample, sample_rows, take_sampled
from mrcnn_jax.runtime.platforms import by_platform
from mrcnn_jax.types import GroundTruth, Proposals


@struct.dataclass
class AnchorTargets:
    """The anchors of an image that the RPN is trained on: S of them, of which some are padding."""

    index: Array  # [S] int32 among the image's anchors
    assignment: Array  # [S] int32 Assignment, IGNORE in padding
    boxes: Array  # [S 4] the ground-truth box matched to each


@struct.dataclass
class RegionTargets:
    """The regions of an image that the heads are trained on, positive ones first."""

    boxes: Array  # [R 4] the regions
    assignment: Array  # [R] int32 Assignment, IGNORE in padding
    labels: Array  # [R] int32 category, 0 where not positive
    gt_index: Array  # [R] int32 row of the matched object


@jax.named_scope("targets")
def anchor_targets(
    key: Key[Array, ""], anchors: Anchors, gt: GroundTruth, config: TrainConfig
) -> AnchorTargets:
    """A sample of an image's positive and negative anchors, and the box matched to each."""
    assign = functools.partial(_assign_anchors, config=config)
    # XLA would lay out a TPU's batch with the images in the 8 sublanes of a register: 2 fill a quarter.
    forms = {"tpu": sequential_vmap(assign), "default": assign}
    gt_index, assignment = by_platform(forms, anchors, gt)
    index, assignment = sample_rows(
        key, assignment, count=config.rpn_samples, positive_fraction=config.rpn_positive_fraction
    )
    return AnchorTargets(index=index, assignment=assignment, boxes=gt.boxes[gt_index[index]])


def _assign_anchors(
    anchors: Anchors, gt: GroundTruth, *, config: TrainConfig
) -> tuple[Int32[Array, " a"], Int32[Array, " a"]]:
    """Every anchor's object and :class:`Assignment`."""
    objects = gt.valid & ~gt.crowd
    iou = pairwise_iou(anchors.boxes, gt.boxes)
    gt_index, assignment = match(
        iou, objects, low=config.rpn_negative_iou, high=config.rpn_positive_iou, keep_best=True
    )
    in_crowd = crowded(anchors.boxes, gt, iou, low=config.rpn_negative_iou, crowd_ioa=config.crowd_ioa)
    unknown = (assignment == Assignment.NEGATIVE) & in_crowd | ~anchors.in_image
    return gt_index, jnp.where(unknown, Assignment.IGNORE, assignment)


@jax.named_scope("targets")
def region_targets(
    key: Key[Array, ""], proposals: Proposals, gt: GroundTruth, config: TrainConfig
) -> RegionTargets:
    """A sample of an image's proposals and ground-truth boxes, with their targets.

    The ground truth is appended to the proposals (as in Detectron2 and torchvision), so that the heads see
    positives from the first step on; not if ``config.roi_append_gt`` is False.
    """
    objects = gt.valid & ~gt.crowd
    boxes, valid = proposals.boxes, proposals.valid
    if config.roi_append_gt:
        boxes, valid = jnp.concatenate([boxes, gt.boxes]), jnp.concatenate([valid, objects])
    gt_index, assignment = _assign_regions(
        boxes, valid, gt, objects, iou=config.roi_positive_iou, config=config
    )
    assignment = sample(
        key, assignment, count=config.roi_samples, positive_fraction=config.roi_positive_fraction
    )
    index, assignment = take_sampled(assignment, count=config.roi_samples)
    return _region_targets(boxes[index], gt_index[index], assignment, gt)


@jax.named_scope("targets")
def refined_targets(
    boxes: Float[Array, "r 4"], valid: Bool[Array, " r"], gt: GroundTruth, *, iou: float, config: TrainConfig
) -> RegionTargets:
    """All boxes of an image that a cascade's head has refined, with their targets for the next one.

    They are not sampled again, nor is the ground truth appended (arXiv 1712.00726, Detectron2). A box that is
    empty, because it left the image, is ignored.
    """
    valid = valid & is_nonempty(boxes)
    objects = gt.valid & ~gt.crowd
    gt_index, assignment = _assign_regions(boxes, valid, gt, objects, iou=iou, config=config)
    return _region_targets(boxes, gt_index, assignment, gt)


def _assign_regions(
    boxes: Array, valid: Array, gt: GroundTruth, objects: Array, *, iou: float, config: TrainConfig
) -> tuple[Int32[Array, " r"], Int32[Array, " r"]]:
    """Every region's object and :class:`Assignment`."""
    overlaps = pairwise_iou(boxes, gt.boxes)
    gt_index, assignment = match(overlaps, objects, low=iou, high=iou, keep_best=False)
    in_crowd = crowded(boxes, gt, overlaps, low=iou, crowd_ioa=config.crowd_ioa)
    unknown = (assignment == Assignment.NEGATIVE) & in_crowd | ~valid
    return gt_index, jnp.where(unknown, Assignment.IGNORE, assignment)


def _region_targets(boxes: Array, gt_index: Array, assignment: Array, gt: GroundTruth) -> RegionTargets:
    labels = jnp.where(assignment == Assignment.POSITIVE, gt.labels[gt_index], 0)
    return RegionTargets(boxes=boxes, assignment=assignment, labels=labels, gt_index=gt_index)


def crowded(
    boxes: Float[Array, "n 4"], gt: GroundTruth, iou: Float[Array, "n g"], *, low: float, crowd_ioa: float
) -> Bool[Array, " n"]:
    """True for boxes that may contain an object of a crowd, and so must not be negatives.

    These have at least a ``crowd_ioa`` share of their area inside a crowd, or an IoU with it of at least
    ``low``, at which a box is no negative of an ordinary object either. A crowd with label 0 stands for
    several objects that found no row of their own: a box whose IoU with one of them is ``low`` has at least
    that share of its area inside the crowd.
    """
    share = jnp.where(gt.labels == 0, min(low, crowd_ioa), crowd_ioa)
    overlaps = (pairwise_ioa(boxes, gt.boxes) >= share) | (iou >= low)
    return jnp.any(gt.valid & gt.crowd & overlaps, axis=1)


def positive_regions(targets: RegionTargets, config: TrainConfig) -> tuple[RegionTargets, Bool[Array, " q"]]:
    """The first rows, which hold all positives, and which are positive: for the mask and keypoint heads."""
    count = int(config.roi_samples * config.roi_positive_fraction)
    head = jax.tree.map(lambda rows: rows[:count], targets)
    return head, head.assignment == Assignment.POSITIVE
