"""Models whose outputs are written down, a batch for them, and what they are asked for its losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.config import Config, ModelConfig, TrainConfig
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.boxes import encode_boxes
from mrcnn_jax.training.objective import compute_losses
from mrcnn_jax.types import Batch, Features, GroundTruth, Proposals

# Samples enough for every candidate, so that nothing is left to chance.
TAKE_ALL = TrainConfig(
    rpn_samples=16, roi_samples=8, roi_positive_fraction=0.5, rpn_pre_nms=7, rpn_post_nms=5
)
DEFAULT = ModelConfig()
SURE = 50.0  # a logit whose loss is nothing if it is right


def losses_of(outputs, batch, key, config, model=DEFAULT):
    """The losses of a model that gives ``outputs``, whatever it sees, and what each stage was asked."""
    asked = {}

    class Scripted(MaskRCNN):
        def __init__(self):
            pass

        def features(self, images, image_sizes, keys):
            assert keys is None  # as there is no drop path
            asked["features"] = image_sizes
            return Features(maps={"p2": jnp.zeros((len(images), 1, 1, 1))}, sizes={})

        def anchors(self, features, image_sizes):
            asked["anchors"] = image_sizes
            return outputs["anchors"]

        def rpn(self, features):
            return outputs["rpn"]

        def propose(self, rpn_outputs, anchors, image_sizes, config):
            asked["propose"] = image_sizes, config.rpn_pre_nms, config.rpn_post_nms, config.rpn_nms_iou
            return outputs["proposals"]

        def region_features(self, features):
            return features

        def box_outputs(self, features, boxes, valid=None, *, stage=0):
            asked[f"box {stage}" if stage else "box"] = boxes, valid
            return outputs["cascade"][stage - 1] if stage else (outputs["logits"], outputs["deltas"])

        def mask_logits(self, features, boxes, labels, valid, *, stage=0):
            asked[f"mask {stage}" if stage else "mask"] = boxes, labels, valid
            return outputs["mask"] * (1 - stage)  # 0 of a second head: undecided

        def mask_log_probabilities(self, features, boxes, labels, valid):
            asked["mask"] = boxes, labels, valid
            return outputs["mask"]

        def keypoint_logits(self, features, boxes, valid):
            asked["keypoint"] = boxes, valid
            return outputs["keypoint"]

    return compute_losses(Scripted(), batch, key, Config(model=model, train=config)), asked


def compiled(config, **parts):
    model = ModelConfig(**parts)
    return jax.jit(lambda outputs, batch, key: losses_of(outputs, batch, key, config, model))


AS_DETECTRON2 = compiled(TAKE_ALL)
AS_TORCHVISION = compiled(
    dataclasses.replace(
        TAKE_ALL, rpn_normalizer="sampled", rpn_beta=1.0, box_beta=0.5, mask_soft_targets=True
    )
)
KEY = jax.random.key(0)

# Two images: in the first a small object, and one whose upper half is cut off; in the second an object
# without a mask, and a row of padding.
GT_BOXES = np.array([[[6, 0, 16.1, 10], [20, 20, 40, 40]], [[50, 50, 60, 70], [1, 2, 3, 4]]], np.float32)
KEYPOINTS = [
    [[[6, 0, 2], [16, 9, 1]], [[21, 21, 2], [39, 39, 0]]],
    [[[59, 51, 1], [59, 69, 2]], [[2, 3, 2]] * 2],
]
ANCHORS = np.array(
    [
        [[6, 0, 16, 9], [70, 70, 80, 80], [20, 20, 40, 44]],  # IoU .89 with the first object, none, .83
        [[50, 50, 60, 70], [0, 0, 8, 8], [90, 90, 99, 99]],  # IoU 1, none; the last is beyond the image
    ],
    np.float32,
)
# IoUs of .67 and .4 with the object that was cut, of .8 and .4 with the third.
PROPOSALS = np.array(
    [[[20, 20, 40, 33.47], [20, 20, 40, 28]], [[50, 50, 60, 66], [50, 50, 60, 58]]], np.float32
)

# So the regions are, in this order: a proposal, the objects themselves, the other proposal; padding.
IMAGE = np.arange(2)[:, None]
REGIONS = np.concatenate([PROPOSALS, GT_BOXES], axis=1)[IMAGE, [[0, 2, 3, 1], [0, 2, 1, 3]]]
OBJECT = [[1, 0, 1, 1], [0, 0, 0, 0]]
LABELS = [[2, 1, 2, 0], [3, 3, 0, 0]]
POSITIVE = np.array([[True, True, True, False], [True, True, False, False]])
SAMPLED = np.array([[True] * 4 + [False] * 4, [True] * 3 + [False] * 5])


def make_batch():
    masks = np.zeros((2, 2, 4, 4), np.uint8)
    masks[0, 0, :, 1] = 1  # half of the left cells, rounded to a little less
    masks[0, 1, 2] = 1
    mask_boxes = GT_BOXES.copy()
    mask_boxes[0, 1] = 20, 0, 40, 40
    return Batch(
        images=np.zeros((2, 100, 100, 3), np.uint8),
        image_sizes=np.array([[100, 90], [80, 100]], np.int32),
        ids=None,
        gt=GroundTruth(
            boxes=GT_BOXES,
            labels=np.array([[1, 2], [3, 2]], np.int32),
            crowd=np.zeros((2, 2), bool),
            valid=np.array([[True, True], [True, False]]),
            masks=masks,
            mask_boxes=mask_boxes,
            keypoints=np.array(KEYPOINTS, np.float32),
        ),
    )


def right_outputs():
    """Right wherever it counts; elsewhere they would cost a lot."""
    objectness = np.array([[SURE, -SURE, SURE], [SURE, -SURE, SURE]], np.float32)
    anchor_deltas = encode_boxes(
        jnp.array(GT_BOXES[IMAGE, [[0, 0, 1], [0, 0, 0]]]), jnp.array(ANCHORS), (1.0, 1.0, 1.0, 1.0)
    )
    anchor_deltas = jnp.where(jnp.array([[1, 0, 1], [1, 0, 0]])[..., None] > 0, anchor_deltas, 9.0)

    logits = np.full((2, 8, 4), (0, 0, 0, SURE), np.float32)
    logits[SAMPLED] = SURE * np.eye(4)[np.array(LABELS)[SAMPLED[:, :4]]]
    deltas = np.full((2, 8, 3, 4), 9, np.float32)
    image, row = np.nonzero(POSITIVE)
    deltas[image, row, np.array(LABELS)[POSITIVE] - 1] = encode_boxes(
        jnp.array(GT_BOXES[IMAGE, OBJECT]), jnp.array(REGIONS), (10.0, 10.0, 5.0, 5.0)
    )[POSITIVE]

    mask = np.full((2, 4, 2, 2), SURE, np.float32)
    mask[0, [0, 2]] = [[SURE, SURE], [-SURE, -SURE]]  # the object that was cut
    mask[0, 1] = [[SURE, -SURE], [SURE, -SURE]]
    mask[0, 3] = -SURE

    keypoint = np.zeros((2, 4, 2, 2, 2), np.float32)
    keypoint[:, :, 1, 0] = SURE  # where no keypoint is
    for image, row, y, x, point in [
        (0, 0, 0, 0, 0),
        (0, 1, 0, 0, 0),
        (0, 1, 1, 1, 1),
        (0, 2, 0, 0, 0),
        (1, 0, 0, 1, 0),
        (1, 1, 0, 1, 0),
        (1, 1, 1, 1, 1),
    ]:
        keypoint[image, row, 1, 0, point], keypoint[image, row, y, x, point] = 0, SURE
    return {
        "anchors": {
            "p2": Anchors(jnp.array(ANCHORS[:, :2]), jnp.ones((2, 2), bool)),
            "p3": Anchors(jnp.array(ANCHORS[:, 2:]), jnp.array([[True], [False]])),
        },
        "rpn": {
            "p2": (objectness[:, :2], anchor_deltas[:, :2]),
            "p3": (objectness[:, 2:], anchor_deltas[:, 2:]),
        },
        "proposals": Proposals(jnp.array(PROPOSALS), jnp.zeros((2, 2)), jnp.ones((2, 2), bool)),
        "logits": logits,
        "deltas": deltas,
        "mask": mask,
        "keypoint": keypoint,
    }


def undecided_outputs():
    """A model's outputs that prefer no class or cell; every box misses its object by a quarter of a delta."""
    right = right_outputs()
    outputs = jax.tree.map(jnp.zeros_like, right) | {name: right[name] for name in ("anchors", "proposals")}
    outputs["rpn"] = {
        level: (0 * objectness, deltas + jnp.array([0.25, 0, 0, 0]))
        for level, (objectness, deltas) in right["rpn"].items()
    }
    outputs["deltas"] = right["deltas"] + jnp.array([0.25, 0, 0, 0])
    outputs["mask"] = jnp.ones_like(right["mask"])
    return outputs
