"""Inference on a batch of images, from arrays to arrays."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, UInt8

from mrcnn_jax.config import Config, ModelConfig, TestConfig
from mrcnn_jax.distributed.sharding import map_images
from mrcnn_jax.models.cascade import refine_boxes
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.ops.boxes import BoxWeights, clip_boxes, decode_boxes, is_nonempty
from mrcnn_jax.ops.keypoints import decode_keypoints
from mrcnn_jax.ops.nms import nms
from mrcnn_jax.types import Detections, Features, Proposals


def predict(
    model: MaskRCNN,
    images: UInt8[Array, "b h w n"] | Float[Array, "b h w n"],
    image_sizes: Int[Array, "b 2"],
    config: Config,
    given: Proposals | None = None,
) -> Detections:
    """Detections in pixels of ``images``: the stages of the paper's figure 1, in order.

    Masks and keypoints are computed for the detected boxes only (paper 3.1). A mask holds probabilities over
    its box, for the detected category; keypoints are pixel positions. With ``model.mask_loss`` "softmax" a
    cell's probability is that of the detected category against the most probable other class: p / (p + q). It
    is at least one half where the category is the predicted class, so the threshold .5 is the rule of FCNs.
    (p itself may be less there, if more than two classes share the probability.)

    Args:
        images: as read (``pixels.PixelFormat``), padded to a canvas at the right and the bottom.
        image_sizes: height and width of each image without padding.
        given: the proposals, for a model without an RPN.

    Raises ValueError if the model has no box head, or no RPN and no proposals are ``given``.
    """
    features, detections = detect_boxes(model, images, image_sizes, config, given)
    if model.mask_head is not None:
        masks = model.mask_probabilities(features, detections.boxes, detections.labels, detections.valid)
        detections = replace(detections, masks=masks)
    if model.keypoint_head is not None:
        keypoint_logits = model.keypoint_logits(features, detections.boxes, detections.valid)
        decode = partial(decode_keypoints, score=config.test.keypoint_score)
        keypoints = map_images(decode, keypoint_logits, detections.boxes, detections.valid)
        detections = replace(detections, keypoints=keypoints)
    return detections


def detect_boxes(
    model: MaskRCNN,
    images: UInt8[Array, "b h w n"] | Float[Array, "b h w n"],
    image_sizes: Int[Array, "b 2"],
    config: Config,
    given: Proposals | None = None,
) -> tuple[Features, Detections]:
    """The maps that regions are pooled from, and the detections without masks and keypoints.

    The arguments are those of ``predict``.
    """
    test = config.test
    features = model.features(images, image_sizes)
    proposals = _propose(model, features, image_sizes, config) if given is None else given
    features = model.region_features(features)
    logits, deltas = model.box_outputs(features, proposals.boxes)
    all_logits, box_weights = [logits], config.model.box_weights
    for stage, next_weights in enumerate(config.model.box_cascade, start=1):
        refine = partial(refine_boxes, weights=box_weights, scale_limits=config.model.box_scale_limits)
        boxes = map_images(refine, proposals.boxes, deltas, image_sizes)
        proposals = replace(proposals, boxes=boxes)
        logits, deltas = model.box_outputs(features, boxes, stage=stage)
        all_logits.append(logits)
        box_weights = next_weights
    select = partial(
        select_detections,
        config=test,
        box_weights=box_weights,
        scores_of=config.model.box_scores,
        scale_limits=config.model.box_scale_limits,
    )
    return features, map_images(select, proposals, tuple(all_logits), deltas, image_sizes)


def check_finds_objects(model: ModelConfig) -> None:
    """Raises ValueError if the model cannot find objects in an image by itself."""
    if not model.box:
        raise ValueError(
            "the model is a region proposal network alone (model.box is False) and finds no objects; "
            "mrcnn-jax propose writes its proposals, and evaluate measures their recall"
        )
    if not model.rpn:
        raise ValueError(
            "the model has no RPN (model.rpn is False) and needs proposals: mrcnn-jax evaluate takes them "
            "from data.val_proposals; to find objects in other images, join it with an RPN "
            "(docs/four_step_training.md)"
        )


def predict_proposals(
    model: MaskRCNN,
    images: UInt8[Array, "b h w n"] | Float[Array, "b h w n"],
    image_sizes: Int[Array, "b 2"],
    config: Config,
) -> Proposals:
    """The RPN's proposals in pixels of ``images``; the arguments are those of ``predict``."""
    return _propose(model, model.features(images, image_sizes), image_sizes, config)


def _propose(model: MaskRCNN, features: Features, image_sizes: Array, config: Config) -> Proposals:
    anchors = model.anchors(features, image_sizes)
    return model.propose(model.rpn_outputs(features), anchors, image_sizes, config.test)


@jax.named_scope("select_detections")
def select_detections(
    proposals: Proposals,
    logits: tuple[Float[Array, "p l"], ...],
    deltas: Float[Array, "p k 4"],
    image_size: Int[Array, "2"],
    *,
    config: TestConfig,
    box_weights: BoxWeights,
    scores_of: str = "softmax",
    scale_limits: str = "above",
) -> Detections:
    """The detections of one image: (proposal, category) pairs above the score threshold, after NMS.

    NMS is applied per category. Only the best ``config.candidates`` pairs enter it. It works down from the
    best score and stops once ``config.detections`` are kept, so the limit matters only if NMS would run out
    of candidates before that. A box emptied by clipping takes up a detection unless its side is under
    ``config.box_smallest_side``, but is not valid (Detectron2 drops it after counting it). The deltas are
    those of each category, or one set for all (K = 1); ``scale_limits`` are as in ``decode_boxes``, and
    ``scores_of`` is ``model.box_scores``. A cascade's ``logits`` are given in turn: its scores are the means
    of its heads', or with ``config.cascade_score`` "logit" those of their mean logits.
    """
    to_scores = jax.nn.sigmoid if scores_of == "sigmoid" else jax.nn.softmax
    num_proposals, num_classes = len(logits[0]), logits[0].shape[1] - 1
    if len(logits) > 1 and config.cascade_score == "logit":
        logits = (sum(logits[1:], logits[0]) / len(logits),)
    scores = to_scores(logits[0])[:, 1:]
    if len(logits) > 1:
        scores = sum((to_scores(later)[:, 1:] for later in logits[1:]), scores) / len(logits)
    scores = jnp.where(proposals.valid[:, None] & (scores > config.score_threshold), scores, -1.0)
    top_scores, pair = jax.lax.top_k(scores.reshape(-1), min(config.candidates, num_proposals * num_classes))
    proposal, category = pair // num_classes, pair % num_classes
    own_deltas = deltas[proposal, 0] if deltas.shape[1] == 1 else deltas[proposal, category]
    boxes = decode_boxes(own_deltas, proposals.boxes[proposal], box_weights, scale_limits=scale_limits)
    boxes = clip_boxes(boxes, image_size)
    large_enough = jnp.all(boxes[:, 2:] - boxes[:, :2] >= config.box_smallest_side, axis=-1)
    index, kept = nms(
        boxes,
        top_scores,
        (top_scores > 0) & large_enough,
        iou_threshold=config.nms_iou,
        max_outputs=config.detections,
        classes=category,
    )
    boxes = boxes[index]
    valid = kept & is_nonempty(boxes)
    return Detections(
        boxes=jnp.where(valid[:, None], boxes, 0.0),
        scores=jnp.where(valid, top_scores[index], 0.0),
        labels=jnp.where(valid, category[index] + 1, 0),
        valid=valid,
    )
