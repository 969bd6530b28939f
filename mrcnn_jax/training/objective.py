"""The loss of a batch: each model stage followed by its loss."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Key

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import map_images
from mrcnn_jax.models.cascade import refine_boxes
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.rpn import Anchors, take_deltas
from mrcnn_jax.ops.keypoints import encode_keypoints
from mrcnn_jax.ops.masks import crop_box_masks
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.runtime.barriers import cpu_barrier
from mrcnn_jax.training.federated import federated_classes
from mrcnn_jax.training.losses import (
    LossSums,
    box_loss,
    keypoint_loss,
    mask_loss,
    rpn_loss,
    softmax_mask_loss,
)
from mrcnn_jax.training.targets import (
    RegionTargets,
    anchor_targets,
    positive_regions,
    refined_targets,
    region_targets,
)
from mrcnn_jax.types import Batch, Features

# A region equal to its object's box is sampled halfway between cells of the mask, where the interpolated
# border of the mask is exactly one half; rounding must not decide there.
_HALF = 0.499
# Folded into an image's keys for other draws than the first, whose keys are split off from 0 on.
_PATHS, _CLASSES = 2**30, 2**31


def compute_losses(
    model: MaskRCNN,
    batch: Batch,
    key: Key[Array, ""],
    config: Config,
    image_counts: Float[Array, " c"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """The losses by name; training minimises their sum (paper 3).

    The mask and keypoint losses are included if the batch has masks and keypoints. The RPN's, the box and the
    keypoint losses have been multiplied by their weights in ``train``, so the logged values are weighted, as
    in Detectron2.

    ``image_counts`` are the numbers of training images with each category, for ``train.federated_classes``;
    None: all equal.

    A model without an RPN takes its regions from ``batch.proposals``; one without a box head has the RPN's
    losses alone. Raises ValueError if the batch has no proposals for the former.
    """
    stages = sum_losses(model, batch, image_keys(key, len(batch.images)), config, image_counts)
    return {name: loss for stage in stages.values() for name, loss in stage.means().items()}


def image_keys(key: Key[Array, ""], images: int) -> Key[Array, "2 b"]:
    """The random keys of every image of a batch: to sample its anchors, and its regions."""
    return jax.random.split(key, (2, images))


def sum_losses(
    model: MaskRCNN,
    batch: Batch,
    keys: Key[Array, "2 b"],
    config: Config,
    image_counts: Float[Array, " c"] | None = None,
) -> dict[str, LossSums]:
    """The losses of each stage before they are divided, see ``compute_losses``; ``keys`` are the images'."""
    train, gt = config.train, batch.gt
    anchor_keys, region_keys = keys

    path_keys = _fold_in(anchor_keys, _PATHS) if config.model.backbone_drop_path else None
    features = model.features(batch.images, batch.image_sizes, path_keys)
    proposals = batch.proposals
    losses: dict[str, LossSums] = {}
    if config.model.rpn:
        rpn_outputs, anchors, losses["rpn"] = _rpn_losses(model, features, batch, anchor_keys, config)
        if not config.model.box:
            return losses
        proposals = model.propose(rpn_outputs, anchors, batch.image_sizes, train)
    if proposals is None:
        raise ValueError("this model has no RPN (model.rpn is False), so the batch must have proposals")
    regions = map_images(
        lambda key, proposals, gt: region_targets(key, proposals, gt, train), region_keys, proposals, gt
    )
    # Makes XLA sum the heads' feature gradients before computing the RPN's, which saves memory.
    features = model.region_features(dataclasses.replace(features, maps=cpu_barrier(features.maps)))
    box_losses, of_stages = _box_losses(model, features, regions, batch, region_keys, config, image_counts)
    losses |= box_losses

    choose = jax.vmap(lambda targets: positive_regions(targets, train))
    regions, positive = choose(regions)
    if gt.masks is not None:
        losses["mask"] = _mask_loss(model, features, regions, positive, batch, config)
        for stage in range(1, len(of_stages) if config.model.mask_cascade else 1):
            chosen = choose(of_stages[stage])
            losses["mask" + _number(stage)] = _mask_loss(model, features, *chosen, batch, config, stage=stage)
    if gt.keypoints is not None:
        keypoint_logits = _rows(model.keypoint_logits(features, regions.boxes, positive))
        cells, visible = encode_keypoints(
            _rows(_take(gt.keypoints, regions.gt_index)),
            _rows(regions.boxes),
            size=keypoint_logits.shape[1],
        )
        count = None
        if train.keypoint_normalizer == "fixed":
            count = positive.size * cells.shape[1]
        found = keypoint_loss(keypoint_logits, cells, visible & _rows(positive)[:, None], count=count)
        weighted = {"keypoint": train.keypoint_weight * found.sums["keypoint"]}
        losses["keypoint"] = dataclasses.replace(found, sums=weighted)
    return losses


def _mask_loss(
    model: MaskRCNN,
    features: Features,
    regions: RegionTargets,
    positive: Bool[Array, "b r"],
    batch: Batch,
    config: Config,
    *,
    stage: int = 0,
) -> LossSums:
    """``mask``, the loss of the mask head on the positive regions, or ``mask_2`` of a cascade's next, ..."""
    gt = batch.gt
    assert gt.masks is not None and gt.mask_boxes is not None
    softmax = config.model.mask_loss == "softmax"
    mask_outputs = model.mask_log_probabilities if softmax else partial(model.mask_logits, stage=stage)
    outputs = _rows(mask_outputs(features, regions.boxes, regions.labels, positive))
    with jax.named_scope("targets"):
        targets = crop_box_masks(
            _rows(_take(gt.masks, regions.gt_index)),
            _rows(_take(gt.mask_boxes, regions.gt_index)),
            _rows(regions.boxes),
            size=outputs.shape[1],
        )
    if not config.train.mask_soft_targets:
        targets = (targets >= _HALF).astype(jnp.float32)
    has_mask = _take(jnp.any(gt.masks > 0, axis=(2, 3)), regions.gt_index)
    loss_of = softmax_mask_loss if softmax else mask_loss
    found = loss_of(outputs, targets, _rows(positive & has_mask))
    return _of_stage(found, stage)


def _box_losses(
    model: MaskRCNN,
    features: Features,
    regions: RegionTargets,
    batch: Batch,
    keys: Key[Array, " b"],
    config: Config,
    image_counts: Float[Array, " c"] | None,
) -> tuple[dict[str, LossSums], list[RegionTargets]]:
    """The losses of the box head and of the further heads of a cascade, ``box_2`` and so on, and the regions
    that each head was trained on."""
    train, gt = config.train, batch.gt
    all_weights = (config.model.box_weights, *config.model.box_cascade)
    losses: dict[str, LossSums] = {}
    of_stages = [regions]
    for stage, box_weights in enumerate(all_weights):
        valid = regions.assignment != Assignment.IGNORE
        logits, deltas = model.box_outputs(features, regions.boxes, valid, stage=stage)
        classes = None
        if train.federated_classes:
            counts = jnp.ones(logits.shape[2] - 1) if image_counts is None else image_counts
            classes = _rows(_trained_classes(_fold_in(keys, _CLASSES + stage), regions, counts, config))
        found = box_loss(
            _rows(logits),
            _rows(deltas),
            _rows(regions.boxes),
            _rows(regions.assignment),
            _rows(regions.labels),
            _rows(_take(gt.boxes, regions.gt_index)),
            box_weights=box_weights,
            beta=train.box_beta,
            kind=train.box_loss,
            scores=config.model.box_scores,
            classes=classes,
        )
        found = LossSums(_weighted(found.sums, "box", train.box_loss_weight), found.count)
        losses["box" + _number(stage)] = _of_stage(found, stage)
        if stage + 1 < len(all_weights):
            limits = config.model.box_scale_limits
            refine = partial(refine_boxes, weights=box_weights, scale_limits=limits)
            boxes = map_images(refine, regions.boxes, deltas, batch.image_sizes)
            label = partial(refined_targets, iou=train.cascade_positive_ious[stage], config=train)
            regions = map_images(label, boxes, valid, gt)
            of_stages.append(regions)
    return losses, of_stages


def _trained_classes(
    keys: Key[Array, " b"], regions: RegionTargets, image_counts: Float[Array, " c"], config: Config
) -> Bool[Array, "b r c"]:
    """The categories that each region trains: those that its image has drawn."""
    train = config.train
    weights = image_counts**train.federated_power

    def draw(key: Array, labels: Array, assignment: Array) -> Array:
        sampled = assignment != Assignment.IGNORE
        return federated_classes(key, labels, sampled, weights, count=train.federated_classes)

    classes = map_images(draw, keys, regions.labels, regions.assignment)
    return jnp.broadcast_to(classes[:, None], (*regions.labels.shape, len(weights)))


def _rpn_losses(
    model: MaskRCNN, features: Features, batch: Batch, keys: Key[Array, " b"], config: Config
) -> tuple[dict[str, tuple[Array, Array]], dict[str, Anchors], LossSums]:
    """The RPN's outputs and the anchors, by level, and the RPN's losses (Faster R-CNN 3.1)."""
    train = config.train
    rpn_outputs = model.rpn_outputs(features)
    anchors = model.anchors(features, batch.image_sizes)
    objectness, deltas = (jnp.concatenate(parts, axis=1) for parts in zip(*rpn_outputs.values(), strict=True))
    all_anchors = jax.tree.map(lambda *levels: jnp.concatenate(levels, axis=1), *anchors.values())
    rpn_targets = map_images(
        lambda key, anchors, gt: anchor_targets(key, anchors, gt, train), keys, all_anchors, batch.gt
    )
    losses = rpn_loss(
        _take(objectness, rpn_targets.index),
        jax.vmap(take_deltas)(deltas, rpn_targets.index),
        _take(all_anchors.boxes, rpn_targets.index),
        rpn_targets.assignment,
        rpn_targets.boxes,
        samples=train.rpn_samples if train.rpn_normalizer == "fixed" else None,
        box_weights=config.model.rpn_box_weights,
        beta=train.rpn_beta,
        kind=train.rpn_box_loss,
    )
    sums = _weighted(losses.sums, "rpn_objectness", train.rpn_objectness_weight)
    sums = _weighted(sums, "rpn_box", train.rpn_box_loss_weight)
    return rpn_outputs, anchors, dataclasses.replace(losses, sums=sums)


def _of_stage(found: LossSums, stage: int) -> LossSums:
    """The losses of a cascade's stage, with its number in their names."""
    return LossSums({name + _number(stage): loss for name, loss in found.sums.items()}, found.count)


def _number(stage: int) -> str:
    return f"_{stage + 1}" if stage else ""


def _weighted(sums: dict[str, Array], name: str, factor: float) -> dict[str, Array]:
    return sums if factor == 1 else sums | {name: factor * sums[name]}


def _fold_in(keys: Key[Array, " b"], number: int) -> Key[Array, " b"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _take(rows: Array, index: Array) -> Array:
    """``rows [B N ...]`` of each image at its own ``index [B S]``."""
    return jax.vmap(lambda r, i: r[i])(rows, index)


def _rows(x: Array) -> Array:
    """``[B R ...]`` as ``[B*R ...]``."""
    return x.reshape(-1, *x.shape[2:])
