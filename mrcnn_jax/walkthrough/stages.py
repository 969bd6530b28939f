"""Runs a trained model on one image and keeps what every stage makes of it.

Shapes: H x W pixels of the image, A anchors of a level, P proposals, D detections.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import UInt8

from mrcnn_jax.config import Config
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.data.shapes_scene import CATEGORIES, SceneObject, draw_scene, mask_bounds
from mrcnn_jax.images import fit
from mrcnn_jax.inference.detector import load_model
from mrcnn_jax.inference.predict import predict
from mrcnn_jax.inference.results import Result, to_result
from mrcnn_jax.inference.views import plain_scale
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.ops.boxes import clip_boxes, decode_boxes
from mrcnn_jax.ops.levels import assign_levels
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.runtime.compilations import compiler_options
from mrcnn_jax.training.targets import AnchorTargets, RegionTargets, anchor_targets, region_targets
from mrcnn_jax.types import Detections, GroundTruth, Proposals

_MASK_GRID = 56  # cells of a box-frame mask, as in configs/shapes.py


@dataclasses.dataclass(frozen=True)
class Stages:
    """What each stage made of the image, as NumPy arrays without the batch axis; boxes in its pixels."""

    image: np.ndarray  # [H W 3] uint8
    canvas: np.ndarray  # the image, resized and padded
    config: Config
    maps: dict[str, np.ndarray]  # [rows columns C] of each level
    anchors: dict[str, np.ndarray]  # [A 4] of each level
    objectness: dict[str, np.ndarray]  # [A] logits of each level
    candidates: Proposals  # each level's best boxes, before suppression
    proposals: Proposals
    scores: np.ndarray  # [P] the highest probability of a category
    labels: np.ndarray  # [P] that category
    refined: np.ndarray  # [P 4] the boxes of that category
    detections: Detections
    levels: np.ndarray  # [D] the level that each detection was pooled from
    keypoint_logits: np.ndarray  # [D M M K]
    result: Result
    anchor_targets: AnchorTargets
    region_targets: RegionTargets


def draw_picture(seed: int, *, size: int, height: int) -> tuple[UInt8[np.ndarray, "h w 3"], GroundTruth]:
    """A picture of shapes, ``height x size`` pixels, and its objects, as training takes them.

    It is the upper part of one of ``size x size`` pixels, so that it does not fill a square canvas.
    """
    picture, scene = draw_scene(np.random.default_rng(seed), size)
    boxes = [mask_bounds(item.visible[:height]) for item in scene]
    kept = [(item, box) for item, box in zip(scene, boxes, strict=True) if box[2] > box[0]]
    return picture[:height], _ground_truth(kept)


def _ground_truth(objects: list[tuple[SceneObject, tuple[int, int, int, int]]]) -> GroundTruth:
    boxes = jnp.array([box for _, box in objects], jnp.float32)
    masks = [rasterise(tuple(item.polygons), box, _MASK_GRID) for item, box in objects]
    return GroundTruth(
        boxes=boxes,
        labels=jnp.array([CATEGORIES.index(item.category) + 1 for item, _ in objects], jnp.int32),
        crowd=jnp.array([item.crowd for item, _ in objects]),
        valid=jnp.ones(len(objects), bool),
        masks=jnp.array(masks, jnp.uint8),
        mask_boxes=boxes,
    )


def run_stages(workdir: Path, image: UInt8[np.ndarray, "h w 3"], gt: GroundTruth) -> Stages:
    """The stages of the run in ``workdir``, whose model has a pyramid, masks and keypoints.

    ``gt`` are the image's objects, of which training makes targets. Raises what ``mrcnn_jax.load`` raises.
    """
    run = read_run(workdir)
    config = run.config
    _, blueprint, weights, mesh = load_model(workdir, run, config, step=None, batch_size=1)
    fitted = fit(image, **plain_scale(config)._asdict(), rule=config.data.resize)
    sizes = np.array([fitted.size], np.int32)
    compute = jax.jit(
        lambda weights, images, sizes: _stages(blueprint, weights, images, sizes, gt, config),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
    with jax.set_mesh(mesh):
        found = jax.device_get(compute(weights, fitted.image[None], sizes))
    result = to_result(
        found["detections"], size=fitted.size, image_size=image.shape[:2], categories=run.categories
    )
    return Stages(image=image, canvas=fitted.image, config=config, result=result, **found)


def _stages(
    blueprint: Blueprint,
    weights: Mapping[str, Array],
    images: Array,
    sizes: Array,
    gt: GroundTruth,
    config: Config,
) -> dict[str, Any]:
    model, test = blueprint.build(weights), config.test
    features = model.features(images, sizes)
    anchors, outputs = model.anchors(features, sizes), model.rpn_outputs(features)
    proposals = model.propose(outputs, anchors, sizes, test)
    counts = [min(test.rpn_pre_nms, objectness.shape[1]) for objectness, _ in outputs.values()]
    unsuppressed = dataclasses.replace(test, rpn_nms_iou=1.0, rpn_post_nms=sum(counts))
    candidates = model.propose(outputs, anchors, sizes, unsuppressed)

    pooled = model.region_features(features)
    logits, deltas = model.box_outputs(pooled, proposals.boxes)
    probabilities = jax.nn.softmax(logits[0])[:, 1:]
    label = jnp.argmax(probabilities, axis=1)
    own = jnp.take_along_axis(deltas[0], label[:, None, None], axis=1)[:, 0]
    refined = decode_boxes(own, proposals.boxes[0], config.model.box_weights)

    detections = predict(model, images, sizes, config)
    numbers = sorted(int(level[1:]) for level in pooled.maps)
    levels = assign_levels(
        detections.boxes[0],
        min_level=numbers[0],
        max_level=numbers[-1],
        canonical_size=config.model.roi_canonical_size,
        rule=config.model.roi_level_rule,
    )
    one = jax.tree.map(lambda rows: rows[0], (features.maps, anchors, outputs, candidates, proposals))
    maps, own_anchors, own_outputs, candidates, proposals = one
    every = Anchors(
        boxes=jnp.concatenate([level.boxes for level in own_anchors.values()]),
        in_image=jnp.concatenate([level.in_image for level in own_anchors.values()]),
    )
    anchor_key, region_key = jax.random.split(jax.random.key(0))
    return {
        "maps": maps,
        "anchors": {name: level.boxes for name, level in own_anchors.items()},
        "objectness": {
            name: jnp.where(own_anchors[name].in_image, level[0], -jnp.inf)
            for name, level in own_outputs.items()
        },
        "candidates": candidates,
        "proposals": proposals,
        "scores": jnp.where(proposals.valid, jnp.max(probabilities, axis=1), 0.0),
        "labels": label + 1,
        "refined": clip_boxes(refined, sizes[0]),
        "detections": jax.tree.map(lambda rows: rows[0], detections),
        "levels": levels,
        "keypoint_logits": model.keypoint_logits(pooled, detections.boxes, detections.valid)[0],
        "anchor_targets": anchor_targets(anchor_key, every, gt, config.train),
        "region_targets": region_targets(region_key, proposals, gt, config.train),
    }
