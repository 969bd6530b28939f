"""Names and layouts of other systems' detectors, by hand; tests/parity has whole models."""

import numpy as np
import pytest

from mrcnn_jax.config import presets
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights import detectron2, mmdetection, torchvision


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _blueprint(config, **sizes):
    return make_blueprint(config.model, **({"num_classes": 80} | sizes))


DETECTRON2_FPN = {
    "backbone.conv1.kernel": ("backbone.bottom_up.stem.conv1.weight", (64, 3, 7, 7)),
    "backbone.bn1.mean": ("backbone.bottom_up.stem.conv1.norm.running_mean", (64,)),
    "backbone.layer1.0.downsample.0.kernel": (
        "backbone.bottom_up.res2.0.shortcut.weight",
        (256, 64, 1, 1),
    ),
    "backbone.layer4.2.bn3.var": ("backbone.bottom_up.res5.2.conv3.norm.running_var", (2048,)),
    "fpn.inner.0.conv.kernel": ("backbone.fpn_lateral2.weight", (256, 256, 1, 1)),
    "fpn.layer.3.conv.bias": ("backbone.fpn_output5.bias", (256,)),
    "rpn.convs.0.kernel": ("proposal_generator.rpn_head.conv.weight", (256, 256, 3, 3)),
    "rpn.cls_logits.bias": ("proposal_generator.rpn_head.objectness_logits.bias", (3,)),
    "rpn.bbox_pred.kernel": ("proposal_generator.rpn_head.anchor_deltas.weight", (12, 256, 1, 1)),
    "box_head.fcs.0.kernel": ("roi_heads.box_head.fc1.weight", (1024, 256 * 49)),
    "box_head.cls_score.kernel": ("roi_heads.box_predictor.cls_score.weight", (81, 1024)),
    "box_head.bbox_pred.bias": ("roi_heads.box_predictor.bbox_pred.bias", (320,)),
    "mask_head.convs.layers.3.conv.bias": ("roi_heads.mask_head.mask_fcn4.bias", (256,)),
    "mask_head.conv5_mask.kernel": ("roi_heads.mask_head.deconv.weight", (256, 256, 2, 2)),
    "mask_head.mask_fcn_logits.kernel": ("roi_heads.mask_head.predictor.weight", (80, 256, 1, 1)),
}


DETECTRON2_DEEPER_HEADS = {
    "backbone.bn1.scale": "backbone.bottom_up.stem.conv1.norm.weight",
    "fpn.inner.0.norm.mean": "backbone.fpn_lateral2.norm.running_mean",
    "fpn.layer.3.norm.bias": "backbone.fpn_output5.norm.bias",
    "rpn.convs.0.kernel": "proposal_generator.rpn_head.conv.conv0.weight",
    "rpn.convs.1.bias": "proposal_generator.rpn_head.conv.conv1.bias",
    "box_head.convs.layers.0.conv.kernel": "roi_heads.box_head.conv1.weight",
    "box_head.convs.layers.3.norm.var": "roi_heads.box_head.conv4.norm.running_var",
    "box_head.fcs.0.bias": "roi_heads.box_head.fc1.bias",
    "mask_head.convs.layers.0.norm.scale": "roi_heads.mask_head.mask_fcn1.norm.weight",
}


def test_detectron2_with_a_pyramid():
    layouts = detectron2.layouts(_blueprint(presets.detectron2()))
    assert {ours: (layouts[ours].name, layouts[ours].shape) for ours in DETECTRON2_FPN} == DETECTRON2_FPN
    assert len({layout.name for layout in layouts.values()}) == len(layouts)


def test_detectron2_without_a_pyramid():
    config = presets.detectron2()
    presets.as_c4(config)
    layouts = detectron2.layouts(_blueprint(config))
    assert layouts["backbone.layer3.5.conv1.kernel"].name == "backbone.res4.5.conv1.weight"
    assert layouts["res5.0.downsample.1.scale"].name == "roi_heads.res5.0.shortcut.norm.weight"
    assert layouts["rpn.bbox_pred.kernel"].shape == (60, 1024, 1, 1)
    assert layouts["mask_head.conv5_mask.kernel"].shape == (2048, 256, 2, 2)


@pytest.mark.slow
def test_detectron2_with_batch_norm_and_more_convolutions(rng):
    config = presets.detectron2()
    model = config.model
    model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "batch"
    model.rpn_convs, model.box_convs, model.box_fcs = 2, 4, 1
    blueprint = _blueprint(config, num_classes=2)
    layouts = detectron2.layouts(blueprint)
    assert {ours: layouts[ours].name for ours in DETECTRON2_DEEPER_HEADS} == DETECTRON2_DEEPER_HEADS
    arrays = {layout.name: rng.random(layout.shape, dtype=np.float32) for layout in layouts.values()}
    counts = {"backbone.bottom_up.stem.conv1.norm.num_batches_tracked": np.array(7)}
    found = detectron2.from_detectron2(arrays | counts, blueprint, source="model_final.pkl")
    assert found.keys() == layouts.keys()


def test_detectron2_keypoints():
    config = presets.detectron2()
    config.model.mask, config.model.keypoint = False, True
    layouts = detectron2.layouts(_blueprint(config, num_classes=1, num_keypoints=17))
    assert (
        layouts["keypoint_head.convs.layers.7.conv.kernel"].name == "roi_heads.keypoint_head.conv_fcn8.weight"
    )
    deconv = layouts["keypoint_head.kps_score_lowres.kernel"]
    assert (deconv.name, deconv.shape) == ("roi_heads.keypoint_head.score_lowres.weight", (512, 17, 4, 4))


def test_detectron2_has_the_background_last(rng):
    blueprint = _blueprint(presets.detectron2(), num_classes=2)
    layouts = detectron2.layouts(blueprint)
    arrays = {layout.name: rng.random(layout.shape, dtype=np.float32) for layout in layouts.values()}
    bias = arrays["roi_heads.box_predictor.cls_score.bias"]
    # Some files also hold the model's constants.
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4))
    arrays["pixel_mean"] = np.zeros((3, 1, 1))
    # Of the federated loss; a cascade's have a number.
    arrays["roi_heads.box_predictor.fed_loss_cls_weights"] = np.zeros(2)
    arrays["roi_heads.box_predictor.2.fed_loss_cls_weights"] = np.zeros(2)
    found = detectron2.from_detectron2(arrays, blueprint, source="model_final.pkl")
    np.testing.assert_array_equal(found["box_head.cls_score.bias"], bias[[2, 0, 1]])
    arrays["roi_heads.box_predictor.cls_score.weight"] = np.zeros((2, 1024), np.float32)
    with pytest.raises(ValueError) as error:
        detectron2.from_detectron2(arrays, blueprint, source="model_final.pkl")
    assert "model_final.pkl" in str(error.value)
    assert "cls_score.weight is (2, 1024), must be (3, 1024)" in str(error.value)


OLD_NAMES = {
    "backbone.fpn.inner_blocks.0.weight": "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn.layer_blocks.3.bias": "backbone.fpn.layer_blocks.3.0.bias",
    "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
    "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
}


@pytest.mark.slow
def test_names_of_torchvision_before_0_14(rng):
    blueprint = _blueprint(presets.torchvision(), num_classes=2)
    layouts = torchvision.layouts(blueprint)
    arrays = {layout.name: rng.random(layout.shape, dtype=np.float32) for layout in layouts.values()}
    assert set(OLD_NAMES.values()) <= set(arrays)
    old = {new: name for name, new in OLD_NAMES.items()}
    renamed = {old.get(name, name): array for name, array in arrays.items()}
    wanted = torchvision.from_torchvision(arrays, blueprint, source="new.pth")
    found = torchvision.from_torchvision(renamed, blueprint, source="old.pth")
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_torchvision_has_rows_for_the_background():
    layouts = torchvision.layouts(_blueprint(presets.torchvision(), num_classes=90))
    assert layouts["box_head.cls_score.bias"].shape == (91,)
    assert layouts["box_head.bbox_pred.kernel"].shape == (364, 1024)
    assert layouts["mask_head.mask_fcn_logits.kernel"].shape == (91, 256, 1, 1)


def test_models_that_torchvision_lacks():
    config = presets.detectron2()
    presets.as_c4(config)
    config.model.mask_norm = "group"
    with pytest.raises(ValueError) as error:
        torchvision.to_torchvision({}, _blueprint(config))
    for part in ("model.features is 'c4'", "stride in the 3x3", "model.mask_norm is 'group'"):
        assert part in str(error.value)


def test_models_that_neither_system_has():
    config = presets.torchvision()
    config.model.non_local = "subsampled"
    blueprint = _blueprint(config)
    with pytest.raises(
        ValueError, match=r"torchvision has no such model:\n  model\.non_local is 'subsampled'"
    ):
        torchvision.to_torchvision({}, blueprint)
    for name, system in (("torchvision", torchvision), ("Detectron2", detectron2)):
        with pytest.raises(ValueError, match=rf"{name} has nothing like backbone\.non_local\."):
            system.layouts(blueprint)


MMDETECTION = {
    "backbone.bn1.mean": ("backbone.bn1.running_mean", (64,)),
    "backbone.layer1.0.downsample.1.scale": ("backbone.layer1.0.downsample.1.weight", (256,)),
    "backbone.layer2.0.conv2.offset.kernel": ("backbone.layer2.0.conv2.conv_offset.weight", (18, 128, 3, 3)),
    "fpn.inner.0.conv.kernel": ("neck.lateral_convs.0.conv.weight", (256, 256, 1, 1)),
    "fpn.layer.3.conv.bias": ("neck.fpn_convs.3.conv.bias", (256,)),
    "rpn.convs.0.kernel": ("rpn_head.rpn_conv.weight", (256, 256, 3, 3)),
    "rpn.bbox_pred.kernel": ("rpn_head.rpn_reg.weight", (12, 256, 1, 1)),
    "box_head.fcs.0.kernel": ("roi_head.bbox_head.0.shared_fcs.0.weight", (1024, 256 * 49)),
    "cascade_heads.1.cls_score.kernel": ("roi_head.bbox_head.2.fc_cls.weight", (81, 1024)),
    "cascade_heads.0.bbox_pred.bias": ("roi_head.bbox_head.1.fc_reg.bias", (4,)),
    "mask_head.convs.layers.3.conv.bias": ("roi_head.mask_head.0.convs.3.conv.bias", (256,)),
    "mask_head.conv5_mask.kernel": ("roi_head.mask_head.0.upsample.weight", (256, 256, 2, 2)),
    "cascade_mask_heads.1.mask_fcn_logits.kernel": (
        "roi_head.mask_head.2.conv_logits.weight",
        (80, 256, 1, 1),
    ),
}


def test_mmdetection_and_the_old_names_of_its_offsets(rng):
    config = presets.mmdetection()
    presets.as_mmdetection_cascade(config)
    config.model.backbone_deformable = "plain"
    blueprint = _blueprint(config)
    layouts = mmdetection.layouts(blueprint)
    assert {ours: (layouts[ours].name, layouts[ours].shape) for ours in MMDETECTION} == MMDETECTION
    arrays = {layout.name: np.broadcast_to(np.float32(1), layout.shape) for layout in layouts.values()}
    bias = rng.random(18, dtype=np.float32)
    del arrays["backbone.layer2.0.conv2.conv_offset.bias"]
    arrays["backbone.layer2.0.conv2_offset.bias"] = bias
    found = mmdetection.from_mmdetection(arrays, blueprint, source="file")
    np.testing.assert_array_equal(found["backbone.layer2.0.conv2.offset.bias"], bias)
