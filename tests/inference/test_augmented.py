"""Shapes: V views, D detections, as in ``augmented.py``."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.augmented import merge_views
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.ops.keypoints import decode_keypoints
from mrcnn_jax.runs.categories import Categories, keypoint_flip_order
from mrcnn_jax.types import Detections

CATEGORIES = Categories(
    ids=(1, 2, 3, 4),
    names=("a", "b", "c", "d"),
    keypoint_labels=(1, 2, 3, 4),
    keypoint_names=tuple(map(str, range(9))),
    flip_pairs=((1, 2), (3, 4), (5, 6)),
)


def test_merging_two_views_by_hand():
    """The frame is 100 x 200; the first view half of it, the second the mirror image at the full size."""
    found = Detections(
        boxes=np.array(
            [
                [[10, 10, 30, 40], [50, 0, 90, 20], [0, 0, 100, 50]],
                [[140, 20, 180, 80], [0, 60, 50, 120], [20, 0, 100, 44]],
            ],
            np.float32,
        ),
        scores=np.array([[0.8, 0.7, 0.99], [0.9, 0.6, 0.5]], np.float32),
        labels=np.array([[1, 2, 1], [1, 1, 2]], np.int32),
        valid=np.array([[True, True, False], [True, True, True]]),
    )
    merge = jax.jit(partial(merge_views, flips=(False, True), iou_threshold=0.5, max_outputs=5))
    merged = jax.device_get(merge(found, np.array([[50, 100], [100, 200]]), np.array([100, 200])))
    # Both views have [20, 20, 60, 80], of category 1. [100, 0, 180, 40] is that of category 2 which the
    # second view has as [100, 0, 180, 44], an IoU of .91. The frame cuts off the last box, which is new.
    assert merged.valid.tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(merged.scores, [0.9, 0.7, 0.6, 0, 0])
    assert merged.labels.tolist() == [1, 2, 1, 0, 0]
    wanted = [[20, 20, 60, 80], [100, 0, 180, 40], [150, 60, 200, 100], [0] * 4, [0] * 4]
    np.testing.assert_allclose(merged.boxes, wanted)


def test_only_as_many_as_are_wanted_are_kept():
    boxes = np.array([[[0, 0, 10, 10], [20, 0, 30, 10]], [[40, 0, 50, 10], [60, 0, 70, 10]]], np.float32)
    found = Detections(
        boxes=boxes,
        scores=np.array([[0.2, 0.1], [0.4, 0.3]], np.float32),
        labels=np.ones((2, 2), np.int32),
        valid=np.ones((2, 2), bool),
    )
    merge = jax.jit(partial(merge_views, flips=(False, False), iou_threshold=0.5, max_outputs=3))
    merged = merge(found, np.full((2, 2), 100), np.array([100, 100]))
    np.testing.assert_allclose(merged.boxes[:, 0], [40, 60, 0])


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    data = dataclasses.replace(tiny_config.data, test_short_side=48, long_side=64)
    return dataclasses.replace(tiny_config, data=data)


@pytest.fixture(scope="module")
def detector(config: Config, tiny_blueprint: Any, tiny_weights: Any) -> Any:
    """``detector(**test)``: the tiny model's detector with these settings of ``test``."""

    def make(**test: Any) -> Detector:
        changed = dataclasses.replace(config, test=dataclasses.replace(config.test, **test))
        predict_fn = make_predict_fn(tiny_blueprint, changed, make_mesh(jax.devices()[:1]))
        return Detector(predict_fn(tiny_weights), changed, CATEGORIES)

    return make


def assert_same(found: Any, wanted: Any) -> None:
    for name in ("boxes", "scores", "labels", "masks", "keypoints"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


@pytest.mark.slow
def test_the_plain_scale_alone_gives_the_plain_results(detector: Any) -> None:
    assert_same(detector(scales=(48,))(picture(0)), detector()(picture(0)))


@pytest.mark.slow
def test_a_mirrored_picture_gives_mirrored_results(detector: Any) -> None:
    flip = detector(flip=True)
    found, mirrored = flip([picture(0), picture(0)[:, ::-1]])
    assert len(found) == len(mirrored) > 4
    np.testing.assert_array_equal(mirrored.labels, found.labels)
    np.testing.assert_allclose(mirrored.scores, found.scores, rtol=1e-5)
    boxes = mirrored.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
    np.testing.assert_allclose(boxes, found.boxes, atol=1e-3)
    assert (mirrored.masks[:, :, ::-1] != found.masks).mean() < 1e-3
    assert found.masks.any() and not found.masks.all()
    order = keypoint_flip_order(9, CATEGORIES.flip_pairs)
    keypoints = (mirrored.keypoints * [-1, 1, 1] + [64, 0, 0])[:, order]
    np.testing.assert_allclose(keypoints, found.keypoints, atol=1e-3)


@pytest.mark.slow
def test_masks_and_keypoints_are_means_over_the_views(
    config: Config, tiny_blueprint: Any, tiny_weights: Any
) -> None:
    """Of the image and its mirror image, for the boxes merged from both, the heads' outputs themselves."""
    changed = dataclasses.replace(config, test=dataclasses.replace(config.test, flip=True))
    mesh = make_mesh(jax.devices()[:1])
    image, sizes = picture(1)[None], np.array([[48, 64]], np.int32)
    image = np.pad(image, [(0, 0), (0, 16), (0, 0), (0, 0)])
    mirror = image[:, :, ::-1]
    order = keypoint_flip_order(9, CATEGORIES.flip_pairs)
    run = make_predict_fn(tiny_blueprint, changed, mesh)(tiny_weights)
    found = jax.device_get(run([(image, sizes), (mirror, sizes)], sizes, order))
    boxes = np.where(found.valid[..., None], found.boxes, 0)
    flipped_boxes = boxes[..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + np.float32([64, 0, 64, 0])

    @jax.jit
    def heads(images: Any, sizes: Any, boxes: Any, labels: Any, valid: Any) -> Any:
        model = tiny_blueprint.build(tiny_weights)
        model.eval()
        features = model.region_features(model.features(images, sizes))
        masks = jax.nn.sigmoid(model.mask_logits(features, boxes, labels, valid))
        return masks, model.keypoint_logits(features, boxes, valid)

    with jax.set_mesh(mesh):
        rest = found.labels, found.valid
        masks, heatmaps = jax.device_get(heads(image, sizes, boxes, *rest))
        mirrored_masks, mirrored_heatmaps = jax.device_get(heads(mirror, sizes, flipped_boxes, *rest))
    wanted = (masks + mirrored_masks[..., ::-1]) / 2
    np.testing.assert_allclose(found.masks[found.valid], wanted[found.valid], atol=1e-5)
    mean = (heatmaps + mirrored_heatmaps[:, :, :, ::-1][..., order]) / 2
    decode = jax.jit(partial(decode_keypoints, score="logit"))
    keypoints = decode(mean[0], found.boxes[0], found.valid[0])
    np.testing.assert_allclose(found.keypoints[0], keypoints, rtol=1e-4, atol=1e-4)
