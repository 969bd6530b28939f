import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import Config, presets
from mrcnn_jax.data.coco_categories import COCO_PERSON
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights.export import difference_lines, export_torchvision, loading_lines
from mrcnn_jax.weights.files import read_arrays
from mrcnn_jax.weights.torchvision import check_in_torchvision

CATEGORIES = Categories(
    ids=(1, 2, 3, 4), names=tuple("abcd"), keypoint_labels=(1,), keypoint_names=tuple("rstuvwxyz")
)


@pytest.fixture
def run(tmp_path, tiny_config, tiny_weights) -> Path:
    write_run(tmp_path / "run", tiny_config, CATEGORIES)
    with Checkpoints(tmp_path / "run", keep=2) as checkpoints:
        checkpoints.save(5, tiny_weights)
        checkpoints.save(6, {name: x + 1 for name, x in tiny_weights.items()})
    return tmp_path / "run"


def test_writes_torchvisions_arrays_of_a_step(run, tiny_weights, tmp_path):
    message = export_torchvision(run, tmp_path / "out.safetensors", step=5)
    arrays = read_arrays(tmp_path / "out.safetensors")
    assert message.startswith(f"{tmp_path}/out.safetensors: {len(arrays)} arrays of step 5 of {run}")
    bias = tiny_weights["box_head.cls_score.bias"]
    np.testing.assert_array_equal(arrays["roi_heads.box_predictor.cls_score.bias"], bias)
    export_torchvision(run, tmp_path / "newest.npz")
    newest = read_arrays(tmp_path / "newest.npz")
    np.testing.assert_array_equal(newest["roi_heads.box_predictor.cls_score.bias"], bias + 1)


def test_settings_that_torchvision_does_not_share_are_listed(run, tmp_path):
    message = export_torchvision(run, tmp_path / "out.npz")
    assert "a detector with these layers, for which torchvision has no function; num_classes=5, " in message
    assert "\n  model.roi_aligned: True in the run, False in torchvision" in message
    assert "model.mask_channels" not in message  # determined by the arrays


def test_says_that_torchvision_pools_by_roi_align(tiny_config):
    assert not any("roi_pooling" in line for line in difference_lines(tiny_config))
    model = dataclasses.replace(tiny_config.model, roi_pooling="pool")
    said = difference_lines(dataclasses.replace(tiny_config, model=model))
    assert "  model.roi_pooling: 'pool' in the run, 'align' in torchvision" in said


@pytest.mark.parametrize("keypoint", [True, False])
def test_says_what_else_changes_detections(tmp_path, tiny_config, tiny_weights, keypoint):
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, keypoint=keypoint),
        data=dataclasses.replace(
            tiny_config.data, test_short_side=50, long_side=60, keypoint_offset=0.5, flip=False
        ),
        test=dataclasses.replace(
            tiny_config.test, batch_size=3, candidates=50, mask_threshold=0.7, keypoint_score="probability"
        ),
    )
    write_run(tmp_path / "run", config, CATEGORIES)
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(
            5,
            {
                name: x
                for name, x in tiny_weights.items()
                if keypoint or not name.startswith("keypoint_head.")
            },
        )
    said = export_torchvision(tmp_path / "run", tmp_path / "out.npz")
    assert "min_size=50, max_size=60" in said
    for name in (
        "test.candidates: 50 in the run, 4096 in torchvision",
        "test.mask_threshold: 0.7 in the run, 0.5 in torchvision",
    ):
        assert f"\n  {name}" in said
    for name in (
        "data.test_short_side",
        "data.long_side",
        "data.flip",
        "test.batch_size",
        "model.mask_convs",
    ):
        assert name not in said
    # Settings of a head that the model has not change nothing.
    for name in (
        "data.keypoint_offset: 0.5 in the run, 0.0 in torchvision",
        "test.keypoint_score: 'probability' in the run, 'logit'",
    ):
        assert (f"\n  {name}" in said) == keypoint


def test_an_existing_file_is_not_overwritten(run, tmp_path):
    (tmp_path / "out.npz").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.npz"):
        export_torchvision(run, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_text() == "mine"
    with pytest.raises(ValueError, match=r"there is no folder \S+nowhere"):
        export_torchvision(run, tmp_path / "nowhere" / "out.npz")


def test_a_model_that_torchvision_lacks(tmp_path, tiny_config, tiny_weights):
    config = dataclasses.replace(
        tiny_config, model=dataclasses.replace(tiny_config.model, backbone_stride_in_1x1=True)
    )
    write_run(tmp_path / "run", config, CATEGORIES)
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(5, tiny_weights)
    with pytest.raises(ValueError, match="torchvision has no such model"):
        export_torchvision(tmp_path / "run", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_heads_that_torchvision_lacks():
    model = dataclasses.replace(
        presets.torchvision().model,
        **{"box_agnostic": True, "box_cascade": ((20.0, 20.0, 10.0, 10.0),), "mask_agnostic": True},
        **{
            "box_scores": "sigmoid",
            "mask_loss": "softmax",
            "mask_fcs": 2,
            "backbone": "regnety_4gf",
            "backbone_deformable": "plain",
        },
    )
    with pytest.raises(ValueError) as error:
        check_in_torchvision(model)
    assert str(error.value).splitlines() == [
        "torchvision has no such model:",
        "  model.backbone is 'regnety_4gf'; it must be 'resnet'",
        "  model.box_scores is 'sigmoid'; it must be 'softmax'",
        "  model.backbone_deformable is 'plain'; it must be ''",
        "  model.box_agnostic is True; it must be False",
        "  model.box_cascade is ((20.0, 20.0, 10.0, 10.0),); it must be ()",
        "  model.mask_agnostic is True; it must be False",
        "  model.mask_loss is 'softmax'; it must be 'sigmoid'",
        "  model.mask_fcs is 2; it must be 0",
    ]


def lines_for(config: Config, output: str = "w.safetensors") -> list[str]:
    return [line.strip() for line in loading_lines(Path(output), config, COCO_PERSON)]


def test_loading_lines_by_hand():
    config = presets.torchvision()
    assert lines_for(config) == [
        "import safetensors.torch, torchvision",
        "model = torchvision.models.detection.maskrcnn_resnet50_fpn("
        "weights=None, weights_backbone=None, num_classes=2)",
        "model.load_state_dict(safetensors.torch.load_file('w.safetensors'))",
    ]
    assert "numpy.load('w.npz')" in lines_for(config, "w.npz")[-1]
    model = config.model
    model.fpn_norm = model.box_norm = model.mask_norm = "batch"
    model.rpn_convs, model.box_convs, model.box_fcs = 2, 4, 1
    assert ".maskrcnn_resnet50_fpn_v2(" in lines_for(config)[1]


def test_the_builder_function_follows_the_model():
    config = presets.torchvision()
    config.model.mask = False
    assert ".fasterrcnn_resnet50_fpn(" in lines_for(config)[1]
    config.model.keypoint = True
    config.model.backbone_norm_epsilon = 0.0
    config.data.long_side = 1000
    _, made, _, *epsilon = lines_for(config)
    assert ".keypointrcnn_resnet50_fpn(" in made
    assert "num_classes=2, num_keypoints=17, min_size=800, max_size=1000)" in made
    assert epsilon[-1] == "module.eps = 0.0"
    config.model.mask = True
    assert lines_for(config)[1].startswith("model = ...  #")


def test_other_anchors_are_passed_to_the_builder_function():
    config = presets.torchvision()
    config.model.anchor_sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    _, anchors, made, _ = lines_for(config)
    assert anchors == (
        "anchors = torchvision.models.detection.anchor_utils.AnchorGenerator("
        "sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,)), aspect_ratios=((0.5, 1.0, 2.0),) * 5)"
    )
    assert made.endswith("weights_backbone=None, num_classes=2, rpn_anchor_generator=anchors)")
    config.model.anchor_sizes = tuple(float(size) for size in range(10, 110, 10))
    assert "sizes=((10.0, 20.0), (30.0, 40.0)," in lines_for(config)[1]
    config.model.anchor_sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    config.model.anchor_ratios = (1.0,)
    assert lines_for(config)[1].endswith("aspect_ratios=((1.0,),) * 5)")
    assert difference_lines(config) == []


def test_second_versions_cannot_be_built_with_another_number_of_anchors():
    config = presets.torchvision()
    model = config.model
    model.fpn_norm = model.box_norm = model.mask_norm = "batch"
    model.rpn_convs, model.box_convs, model.box_fcs = 2, 4, 1
    model.anchor_ratios = (0.4, 1.0, 2.5)  # as many as torchvision's own: the arrays fit, the anchors differ
    assert lines_for(config)[1].endswith("_v2(weights=None, weights_backbone=None, num_classes=2)")
    assert difference_lines(config)[1:] == [
        "  model.anchor_ratios: (0.4, 1.0, 2.5) in the run, (0.5, 1.0, 2.0) in torchvision"
    ]
    model.anchor_ratios = (1.0, 2.0)
    assert lines_for(config)[1].startswith("model = ...  # a detector with these layers")
