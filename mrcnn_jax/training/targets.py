"""What each anchor and each region should learn, for one image (Faster R-CNN 3.1.2, paper 3.1)."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.ops.boxes import pairwise_ioa, pairwise_iou
from mrcnn_jax.ops.matching import Assignment, match, sample, take_sampled
from mrcnn_jax.types import GroundTruth, Proposals


@struct.dataclass
class AnchorTargets:
    """Targets of the anchors of an image."""

    assignment: Array  # [A] int32 Assignment, IGNORE where not sampled
    boxes: Array  # [A 4] the ground-truth box matched to each anchor


@struct.dataclass
class RegionTargets:
    """The regions on which the heads of an image are trained, positive ones first."""

    boxes: Array  # [R 4] the regions
    assignment: Array  # [R] int32 Assignment, IGNORE in padding
    labels: Array  # [R] int32 category, 0 where not positive
    gt_index: Array  # [R] int32 row of the matched object


def anchor_targets(
    key: Key[Array, ""], anchors: Float[Array, "a 4"], gt: GroundTruth, config: TrainConfig
) -> AnchorTargets:
    """Which of an image's anchors are positive and negative, and the boxes they should move to."""
    objects = gt.valid & ~gt.crowd
    gt_index, assignment = match(
        pairwise_iou(anchors, gt.boxes),
        objects,
        low=config.rpn_negative_iou,
        high=config.rpn_positive_iou,
        keep_best=True,
    )
    assignment = ignore_crowds(assignment, anchors, gt, config.crowd_ioa)
    assignment = sample(
        key, assignment, count=config.rpn_samples, positive_fraction=config.rpn_positive_fraction
    )
    return AnchorTargets(assignment=assignment, boxes=gt.boxes[gt_index])


def region_targets(
    key: Key[Array, ""], proposals: Proposals, gt: GroundTruth, config: TrainConfig
) -> RegionTargets:
    """A sample of an image's proposals, and of the objects themselves, with what each should become.

    The ground truth joins the proposals (as in Detectron2 and torchvision), so that an object is learnt from
    the first step on.
    """
    objects = gt.valid & ~gt.crowd
    boxes = jnp.concatenate([proposals.boxes, gt.boxes])
    valid = jnp.concatenate([proposals.valid, objects])
    iou = config.roi_positive_iou
    gt_index, assignment = match(pairwise_iou(boxes, gt.boxes), objects, low=iou, high=iou, keep_best=False)
    assignment = ignore_crowds(assignment, boxes, gt, config.crowd_ioa)
    assignment = jnp.where(valid, assignment, Assignment.IGNORE)
    assignment = sample(
        key, assignment, count=config.roi_samples, positive_fraction=config.roi_positive_fraction
    )
    index, assignment = take_sampled(assignment, count=config.roi_samples)
    gt_index = gt_index[index]
    return RegionTargets(
        boxes=boxes[index],
        assignment=assignment,
        labels=jnp.where(assignment == Assignment.POSITIVE, gt.labels[gt_index], 0),
        gt_index=gt_index,
    )


def ignore_crowds(
    assignment: Int[Array, " n"], boxes: Float[Array, "n 4"], gt: GroundTruth, crowd_ioa: float
) -> Int[Array, " n"]:
    """``assignment`` with negatives that lie mostly inside a crowd ignored: they may well hold an object."""
    ioa = jnp.where(gt.valid & gt.crowd, pairwise_ioa(boxes, gt.boxes), 0.0)
    in_crowd = jnp.any(ioa >= crowd_ioa, axis=1)
    return jnp.where((assignment == Assignment.NEGATIVE) & in_crowd, Assignment.IGNORE, assignment)


def positive_regions(targets: RegionTargets, config: TrainConfig) -> tuple[RegionTargets, Bool[Array, " q"]]:
    """The rows that may be positive, with which of them are: what the mask and keypoint heads see."""
    count = int(config.roi_samples * config.roi_positive_fraction)
    head = jax.tree.map(lambda rows: rows[:count], targets)
    return head, head.assignment == Assignment.POSITIVE
