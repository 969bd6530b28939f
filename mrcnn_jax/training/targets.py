"""What each anchor and each region should learn, for one image (Faster R-CNN 3.1.2, paper 3.1)."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Key

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.models.rpn import Anchors
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
    key: Key[Array, ""], anchors: Anchors, gt: GroundTruth, config: TrainConfig
) -> AnchorTargets:
    """Which of an image's anchors are positive and negative, and the boxes they should move to."""
    objects = gt.valid & ~gt.crowd
    iou = pairwise_iou(anchors.boxes, gt.boxes)
    gt_index, assignment = match(
        iou, objects, low=config.rpn_negative_iou, high=config.rpn_positive_iou, keep_best=True
    )
    in_crowd = crowded(anchors.boxes, gt, iou, low=config.rpn_negative_iou, crowd_ioa=config.crowd_ioa)
    unknown = (assignment == Assignment.NEGATIVE) & in_crowd | ~anchors.in_image
    assignment = jnp.where(unknown, Assignment.IGNORE, assignment)
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
    iou, threshold = pairwise_iou(boxes, gt.boxes), config.roi_positive_iou
    gt_index, assignment = match(iou, objects, low=threshold, high=threshold, keep_best=False)
    in_crowd = crowded(boxes, gt, iou, low=threshold, crowd_ioa=config.crowd_ioa)
    unknown = (assignment == Assignment.NEGATIVE) & in_crowd | ~valid
    assignment = jnp.where(unknown, Assignment.IGNORE, assignment)
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


def crowded(
    boxes: Float[Array, "n 4"], gt: GroundTruth, iou: Float[Array, "n g"], *, low: float, crowd_ioa: float
) -> Bool[Array, " n"]:
    """Which boxes may well hold an object of a crowd, and so are no negatives.

    They lie in one by a share of ``crowd_ioa`` or more, or overlap it as no negative may an object (IoU of
    ``low`` or more).
    """
    overlaps = (pairwise_ioa(boxes, gt.boxes) >= crowd_ioa) | (iou >= low)
    return jnp.any(gt.valid & gt.crowd & overlaps, axis=1)


def positive_regions(targets: RegionTargets, config: TrainConfig) -> tuple[RegionTargets, Bool[Array, " q"]]:
    """The rows that may be positive, with which of them are: what the mask and keypoint heads see."""
    count = int(config.roi_samples * config.roi_positive_fraction)
    head = jax.tree.map(lambda rows: rows[:count], targets)
    return head, head.assignment == Assignment.POSITIVE
