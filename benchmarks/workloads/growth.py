"""Works on a growing number of things, to see how their time grows.

Each function takes a config and numbers, and returns the work on so many things for each of the numbers.
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

from benchmarks.timing import Work, compiled
from benchmarks.workloads import models, ops
from mrcnn_jax.config import Config
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.training.targets import anchor_targets, region_targets
from mrcnn_jax.types import Features, GroundTruth, Proposals

Works = dict[int, Work]


def exponent(numbers: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The e of time in proportion to number ** e: the slope of their logarithms over the last three points.

    Of two points it is that of the line through them; of one, None. Small numbers are left out because
    there what does not grow takes most of the time.
    """
    points = [(math.log(number), math.log(time)) for number, time in zip(numbers, seconds, strict=True)][-3:]
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else None


def infer_images(config: Config, numbers: Sequence[int]) -> Works:
    """Inference of so many images as a batch, from pixels to entries of a results list."""
    model = models.make_model(config)
    return {n: models.infer("inference", model, n) for n in numbers}


def evaluate_images(_: Config, numbers: Sequence[int]) -> Works:
    """COCO's metrics of boxes, of 100 detections in each of so many images."""
    from benchmarks.workloads import evaluation  # needs pycocotools and hotcoco, which no other work does

    return {n: evaluation.evaluate("evaluation_bbox", n)[0] for n in numbers}


def pool_regions(config: Config, numbers: Sequence[int]) -> Works:
    """RoIAlign and box head of so many regions of an image, their sides of 16 to 700 pixels."""
    model = models.make_model(config, choose_threshold=False).folded()
    features = _features(model)

    def classify(weights: Any, features: Features, boxes: Array) -> Any:
        return model.blueprint.build(weights).box_outputs(features, boxes)

    return {
        n: Work("regions", compiled(classify, model.weights, features, _boxes(model, n)[None]))
        for n in numbers
    }


def assign_objects(config: Config, numbers: Sequence[int]) -> Works:
    """What the anchors and proposals of an image should learn from so many objects.

    Each anchor is compared with each object. So is each object, as it joins the proposals; that square is
    nothing beside the anchors, 268,569 of a canvas of 800 x 1344 with a pyramid.
    """
    model, train = models.make_model(config, choose_threshold=False), config.train
    anchors = _anchors(model)
    boxes = _boxes(model, train.rpn_post_nms)
    proposals = Proposals(boxes=boxes, scores=jnp.zeros(len(boxes)), valid=jnp.ones(len(boxes), bool))

    def assign(key: Array, anchors: Anchors, proposals: Proposals, gt: GroundTruth) -> Any:
        return anchor_targets(key, anchors, gt, train), region_targets(key, proposals, gt, train)

    def work(count: int) -> Work:
        gt = GroundTruth(
            boxes=_boxes(model, count),
            labels=jnp.ones(count, jnp.int32),
            crowd=jnp.zeros(count, bool),
            valid=jnp.ones(count, bool),
        )
        return Work("objects", compiled(assign, jax.random.key(0), anchors, proposals, gt))

    return {n: work(n) for n in numbers}


def paste_masks(_: Config, numbers: Sequence[int]) -> Works:
    """So many masks pasted into an image, and its run-length codes."""
    return {n: ops.paste_and_encode("masks", count=n) for n in numbers}


def suppress_boxes(_: Config, numbers: Sequence[int]) -> Works:
    """NMS of so many boxes, eight near each of some objects, and all that are not suppressed are kept."""
    return {n: ops.suppress("boxes", boxes=n) for n in numbers}


def train_on_devices(config: Config, numbers: Sequence[int]) -> Works:
    """A training step on so many devices, with an image on each; no work for more devices than there are."""
    model = models.make_model(config, choose_threshold=False)
    objects = models.choose_objects(model, 1)

    def work(count: int) -> Work:
        own = dataclasses.replace(model, weights=jax.tree.map(jnp.copy, model.weights))
        return models.train("devices", own, objects.repeat(count, axis=0), devices=count)

    return {n: work(n) for n in numbers if n <= jax.device_count()}


WORKS: dict[str, Callable[[Config, Sequence[int]], Works]] = {
    "images": infer_images,
    "evaluation": evaluate_images,
    "regions": pool_regions,
    "objects": assign_objects,
    "masks": paste_masks,
    "boxes": suppress_boxes,
    "devices": train_on_devices,
}


def _features(model: models.Model) -> Features:
    """Of a batch of one image."""
    find = jax.jit(lambda weights, *image: model.blueprint.build(weights).features(*image))
    return find(model.weights, *models.on_canvas(model, 1))


def _anchors(model: models.Model) -> Anchors:
    """Of one image and all levels."""

    @jax.jit
    def find(weights: Any, images: Array, sizes: Array) -> Anchors:
        module = model.blueprint.build(weights)
        levels = module.anchors(module.features(images, sizes), sizes)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1)[0], *levels.values())

    return find(model.weights, *models.on_canvas(model, 1))


def _boxes(model: models.Model, count: int) -> Array:
    """Boxes ``[count 4]`` all over the image."""
    height, width = model.image_size
    scale = np.array([width / ops.WIDTH, height / ops.HEIGHT] * 2, np.float32)
    return jnp.asarray(ops.random_boxes(np.random.default_rng(0), count) * scale)
