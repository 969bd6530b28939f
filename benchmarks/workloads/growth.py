"""Workloads with growing numbers of items, to measure how their time grows.

Each function takes a config and numbers of items, and returns a workload for each number.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.benchmarks.timing import Workload, compiled
from mrcnn_jax.benchmarks.workloads import models, ops
from mrcnn_jax.config import Config
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.training.targets import anchor_targets, region_targets
from mrcnn_jax.types import Features, GroundTruth, Proposals

Workloads = dict[int, Workload]


def exponent(numbers: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The e of time ~ number ** e: the slope of the logarithms over the last three points.

    For two points it is the slope of the line through them; for one, None. Small numbers are left out because
    constant costs dominate there.
    """
    points = [(math.log(number), math.log(time)) for number, time in zip(numbers, seconds, strict=True)][-3:]
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else None


def infer_images(config: Config, numbers: Sequence[int]) -> Workloads:
    """Inference on a batch of images, from pixels to entries of a results list."""
    model = models.make_model(config)
    return {n: models.infer("inference", model, n) for n in numbers}


def evaluate_images(_: Config, numbers: Sequence[int]) -> Workloads:
    """COCO's box metrics, with 100 detections per image."""
    # The only workload that needs pycocotools and hotcoco.
    from mrcnn_jax.benchmarks.workloads import evaluation

    return {n: evaluation.evaluate("evaluation_bbox", n)[0] for n in numbers}


def pool_regions(config: Config, numbers: Sequence[int]) -> Workloads:
    """RoIAlign and box head on regions of an image, with sides of 16 to 700 pixels."""
    model = models.make_model(config, choose_threshold=False).folded()
    features = _features(model)

    def classify(weights: Any, features: Features, boxes: Array) -> Any:
        return model.blueprint.build(weights).box_outputs(features, boxes)

    return {
        n: Workload("regions", compiled(classify, model.weights, features, _boxes(model, n)[None]))
        for n in numbers
    }


def assign_objects(config: Config, numbers: Sequence[int]) -> Workloads:
    """The training targets of an image's anchors and proposals.

    Each anchor is compared with each object. So is each object, because objects join the proposals; that
    square is negligible beside the anchors, 268,569 on a canvas of 800 x 1344 with a pyramid.
    """
    model, train = models.make_model(config, choose_threshold=False), config.train
    anchors = _anchors(model)
    boxes = _boxes(model, train.rpn_post_nms)
    proposals = Proposals(boxes=boxes, scores=jnp.zeros(len(boxes)), valid=jnp.ones(len(boxes), bool))

    def assign(key: Array, anchors: Anchors, proposals: Proposals, gt: GroundTruth) -> Any:
        return anchor_targets(key, anchors, gt, train), region_targets(key, proposals, gt, train)

    def workload(count: int) -> Workload:
        gt = GroundTruth(
            boxes=_boxes(model, count),
            labels=jnp.ones(count, jnp.int32),
            crowd=jnp.zeros(count, bool),
            valid=jnp.ones(count, bool),
        )
        return Workload("objects", compiled(assign, jax.random.key(0), anchors, proposals, gt))

    return {n: workload(n) for n in numbers}


def paste_masks(_: Config, numbers: Sequence[int]) -> Workloads:
    """Pasting masks into an image, and run-length encoding."""
    return {n: ops.paste_and_encode("masks", count=n) for n in numbers}


def suppress_boxes(_: Config, numbers: Sequence[int]) -> Workloads:
    """NMS of boxes, eight near each object, keeping all that are not suppressed."""
    return {n: ops.suppress("boxes", boxes=n) for n in numbers}


def train_on_devices(config: Config, numbers: Sequence[int]) -> Workloads:
    """A training step with one image per device; no workload for more devices than there are."""
    model = models.make_model(config, choose_threshold=False)
    objects = models.choose_objects(model, 1)

    def workload(count: int) -> Workload:
        own = dataclasses.replace(model, weights=jax.tree.map(jnp.copy, model.weights))
        return models.train("devices", own, objects.repeat(count, axis=0), devices=count)

    return {n: workload(n) for n in numbers if n <= jax.device_count()}


WORKLOADS: dict[str, Callable[[Config, Sequence[int]], Workloads]] = {
    "images": infer_images,
    "evaluation": evaluate_images,
    "regions": pool_regions,
    "objects": assign_objects,
    "masks": paste_masks,
    "boxes": suppress_boxes,
    "devices": train_on_devices,
}


def _features(model: models.Model) -> Features:
    """The features of a batch of one image."""
    find = jax.jit(lambda weights, *image: model.blueprint.build(weights).features(*image))
    return find(model.weights, *models.on_canvas(model, 1))


def _anchors(model: models.Model) -> Anchors:
    """The anchors of one image, of all levels."""

    @jax.jit
    def find(weights: Any, images: Array, sizes: Array) -> Anchors:
        module = model.blueprint.build(weights)
        levels = module.anchors(module.features(images, sizes), sizes)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1)[0], *levels.values())

    return find(model.weights, *models.on_canvas(model, 1))


def _boxes(model: models.Model, count: int) -> Array:
    """Boxes ``[count 4]`` spread over the image."""
    height, width = model.image_size
    scale = np.array([width / ops.WIDTH, height / ops.HEIGHT] * 2, np.float32)
    return jnp.asarray(ops.random_boxes(np.random.default_rng(0), count) * scale)
