"""The stages of a model with random weights, and all pictures; only drawing needs a sure detection."""

import dataclasses

import jax
import numpy as np
import pytest

from mrcnn_jax.data.shapes_scene import CATEGORIES, KEYPOINTS, SKELETON
from mrcnn_jax.inference.results import to_result
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.walkthrough.pictures import PICTURES, loss_curves
from mrcnn_jax.walkthrough.stages import draw_picture, run_stages

SHAPES = Categories(
    ids=(1, 2, 3, 4),
    names=CATEGORIES,
    keypoint_labels=(4,),
    keypoint_names=KEYPOINTS,
    skeleton=SKELETON,
    sigmas=(0.08,) * len(KEYPOINTS),
)


def test_a_picture_and_its_objects():
    image, gt = draw_picture(41, size=128, height=96)
    assert image.shape == (96, 128, 3)
    assert [CATEGORIES[label - 1] for label in gt.labels] == ["circle", "figure", "square"]
    assert gt.masks.shape == (3, 56, 56) and gt.masks.any(axis=(1, 2)).all()
    boxes = np.asarray(gt.boxes)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [128, 96]).all()


def test_the_losses_of_a_stage_are_added_in_growing_parts():
    tags = "rpn_objectness", "rpn_box", "box_class", "box", "mask", "keypoint"
    scalars = {f"train/{tag}": [(step, float(step)) for step in (10, 20, 30, 40)] for tag in tags}
    (panel,) = loss_curves(scalars)
    assert panel.curves["rpn"] == [(10, 20), (20, 40), (30, 60), (40, 80)]
    assert panel.curves["mask"][-1] == (40, 40)


@pytest.mark.slow
def test_all_pictures_are_drawn(tmp_path, tiny_config, tiny_blueprint, tiny_weights):
    write_run(tmp_path, tiny_config, SHAPES)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tiny_weights)
    image, gt = draw_picture(41, size=64, height=48)
    stages = run_stages(tmp_path, image, gt)

    assert stages.canvas.shape == (64, 64, 3) and not stages.canvas[48:].any()
    assert list(stages.maps) == list(stages.anchors) == list(stages.objectness)
    for level, cells in stages.maps.items():
        assert stages.anchors[level].shape == (cells.shape[0] * cells.shape[1] * 3, 4)
    assert stages.candidates.valid.sum() > stages.proposals.valid.sum() > 0
    assert set(np.unique(stages.levels)) <= {2, 3, 4, 5}
    assert (stages.anchor_targets.assignment == 2).any() and (stages.region_targets.labels > 0).any()

    count = len(gt.labels)
    found = jax.tree.map(np.array, stages.detections)
    found.boxes[:count], found.labels[:count], found.scores[:count] = gt.boxes, gt.labels, 0.9
    found.valid[:] = np.arange(len(found.valid)) < count
    result = to_result(found, size=(48, 64), image_size=(48, 64), categories=SHAPES)
    stages = dataclasses.replace(stages, detections=found, result=result)
    for name, draw in PICTURES.items():
        picture = draw(stages)
        assert 300 < picture.width <= 720 and len(picture.convert("RGB").getcolors(1 << 20)) > 3, name
