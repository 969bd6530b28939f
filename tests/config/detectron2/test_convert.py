"""Detectron2's YAML files as configs: what their keys are here, and what is refused."""

import re

import pytest

from mrcnn_jax.config import presets
from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.io import differences, validate
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, config_of

PUBLISHED = {
    model.address.split("/")[-4] + "/" + model.address.split("/")[-3]: model
    for model in MODELS.values()
    if model.system == "detectron2"
}


# The configs of the others are programs.
@pytest.mark.parametrize("name", [n for n in PUBLISHED if not re.match(r"new_baselines/|.*vitdet", n)])
def test_published_models_have_the_configs_of_this_project(zoo, name):
    config = read_config(zoo / f"{name}.yaml")
    validate(config)
    found = differences(config, config_of(PUBLISHED[name]))
    if "scratch" not in name:
        weights, _ = found.pop("model.backbone_weights")
        assert weights in BACKBONES
    for split in ("train", "val"):
        found.pop(f"data.{split}_proposals", None)
    if PUBLISHED[name].config.endswith("3x") and name.endswith("1x"):  # which differ in their schedules
        assert found.pop("train.steps") == (90_000, 270_000)
        assert found.pop("train.decay_steps") == ((60_000, 80_000), (210_000, 250_000))
    if re.search("_gn|_syncbn", name):  # whose training has no config of this project
        found = {field: values for field, values in found.items() if not field.startswith("train.")}
    if "X_152" in name:
        assert found.keys() == {
            f"data.{x}" for x in ("train_short_sides", "train_long_side", "canvases", "crop")
        }
        found.clear()
    assert not found


REFUSED = {
    "Base-RetinaNet": "tag:yaml.org,2002:python/object/apply:eval",
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x": "META_ARCHITECTURE is 'PanopticFPN'",
    "Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x": "META_ARCHITECTURE is 'PanopticFPN'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_no_counterpart_for_is_refused(zoo, name):
    for for_inference in (False, True):
        with pytest.raises(ValueError) as error:
            read_config(zoo / f"{name}.yaml", for_inference=for_inference)
        assert REFUSED[name] in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "Cityscapes/mask_rcnn_R_50_FPN",
        "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv",
        "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x",
        "LVISv0.5-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_1x",
        "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic",
        "Misc/mask_rcnn_R_50_FPN_3x_syncbn",
        "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn",
        "PascalVOC-Detection/faster_rcnn_R_50_C4",
    ],
)
def test_other_files(zoo, name):
    config = read_config(zoo / f"{name}.yaml")
    validate(config)
    changed = {key: value for key, (value, _) in differences(config, presets.detectron2()).items()}
    assert changed == OTHERS[name]


OTHERS = {
    "Cityscapes/mask_rcnn_R_50_FPN": {
        # Of a whole model, which training takes with --init; as a backbone, there is no such file.
        "model.backbone_weights": (
            "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
        ),
        "data.train_images": "leftImg8bit/train",
        "data.train_annotations": "train.json",
        "data.val_images": "leftImg8bit/val",
        "data.val_annotations": "val.json",
        "data.train_short_sides": (800, 832, 864, 896, 928, 960, 992, 1024),
        "data.test_short_side": 1024,
        "data.long_side": 2048,
        "data.canvases": ((1024, 2048), (2048, 1024)),
        "train.steps": 24_000,
        "train.batch_size": 8,
        "train.learning_rate": 0.01,
        "train.decay_steps": (18_000,),
        "train.eval_every": 8000,
    },
    "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv": {
        "model.backbone_depth": 152,
        "model.backbone_groups": 32,
        "model.backbone_group_width": 8,
        "model.backbone_deformable": "plain",
        "model.backbone_stride_in_1x1": False,
        "model.backbone_weights": "detectron2/FAIR/X-152-32x8d-IN5k",
        "model.box_convs": 4,
        "model.box_norm": "group",
        "model.box_fcs": 1,
        "model.box_agnostic": True,
        "model.box_cascade": ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
        "model.mask_convs": 8,
        "model.mask_norm": "group",
        "data.train_short_sides": tuple(range(640, 865)),
        "data.train_long_side": 1440,
        "data.canvases": ((864, 1440), (1440, 864), (1440, 1440)),
        "data.crop": "relative_range",
        "train.steps": 50_000,
        "train.batch_size": 128,
        "train.learning_rate": 0.16,
        "train.decay_steps": (35_000, 45_000),
        "train.rpn_post_nms": 2000,
        "train.cascade_positive_ious": (0.6, 0.7),
        "train.eval_every": 2500,
    },
    "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x": {
        "model.backbone_weights": "detectron2/MSRA/R-50",
        "model.roi_sampling_ratio": 2,
        "model.roi_aligned": False,
        "data.train_short_sides": (800,),
        "train.rpn_beta": 0.1111,
        "train.box_beta": 1.0,
    },
    "LVISv0.5-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_1x": {
        "model.pixel_std": (57.375, 57.12, 58.395),
        "model.backbone_depth": 101,
        "model.backbone_groups": 32,
        "model.backbone_group_width": 8,
        "model.backbone_stride_in_1x1": False,
        "model.backbone_weights": "detectron2/FAIR/X-101-32x8d",
        "data.train_images": ".",
        "data.train_annotations": "annotations/lvis_v0.5_train.json",
        "data.val_images": ".",
        "data.val_annotations": "annotations/lvis_v0.5_val.json",
        "data.repeat_threshold": 0.001,
        "test.score_threshold": 0.0001,
        "test.detections": 300,
    },
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": {
        "model.backbone_weights": "detectron2/MSRA/R-50",
        "data.train_images": ".",
        "data.train_annotations": "annotations/lvis_v1_train.json",
        "data.val_images": ".",
        "data.val_annotations": "annotations/lvis_v1_val.json",
        "data.repeat_threshold": 0.001,
        "train.steps": 180_000,
        "train.decay_steps": (120_000, 160_000),
        "test.score_threshold": 0.0001,
        "test.detections": 300,
    },
    "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic": {
        "model.backbone_weights": "detectron2/MSRA/R-50",
        "model.box_agnostic": True,
        "model.mask_agnostic": True,
    },
    "Misc/mask_rcnn_R_50_FPN_3x_syncbn": {
        "model.backbone_weights": "detectron2/MSRA/R-50",
        "model.backbone_norm": "batch",
        "model.fpn_norm": "batch",
        "model.box_convs": 4,
        "model.box_norm": "batch",
        "model.box_fcs": 1,
        "model.mask_norm": "batch",
        "train.steps": 270_000,
        "train.decay_steps": (210_000, 250_000),
        "train.precise_bn": 200,
    },
    "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn": {
        "model.pixel_std": (57.375, 57.12, 58.395),
        "model.backbone_norm": "group",
        "model.backbone_stride_in_1x1": False,
        "model.backbone_frozen_stages": 0,
        "model.fpn_norm": "group",
        "model.box_convs": 4,
        "model.box_fcs": 1,
        "model.box_norm": "group",
        "model.mask_norm": "group",
        "train.steps": 202_500,
        "train.batch_size": 64,
        "train.learning_rate": 0.08,
        "train.decay_steps": (187_500, 197_500),
        "train.eval_every": 2500,
    },
    "PascalVOC-Detection/faster_rcnn_R_50_C4": {
        "model.features": "c4",
        "model.padding_multiple": 1,
        "model.backbone_weights": "detectron2/MSRA/R-50",
        "model.box_pool_size": 14,
        "model.box_fcs": 0,
        "model.mask": False,
        "model.mask_convs": 0,
        "data.train_images": "voc_2007_trainval",
        "data.train_annotations": "voc_2007_trainval.json",
        "data.more_train_images": ("voc_2012_trainval",),
        "data.more_train_annotations": ("voc_2012_trainval.json",),
        "data.val_images": "voc_2007_test",
        "data.val_annotations": "voc_2007_test.json",
        "data.train_short_sides": tuple(range(480, 801, 32)),
        "train.steps": 18_000,
        "train.decay_steps": (12_000, 16_000),
        "train.warmup_steps": 100,
        "train.rpn_pre_nms": 12_000,
        "train.rpn_post_nms": 2000,
        "test.rpn_pre_nms": 6000,
    },
}


def test_proposals_are_looked_for_in_this_projects_format(zoo):
    data = read_config(zoo / "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml").data
    assert data.train_proposals == "coco_2017_train_box_proposals_21bc3a.npz"
    assert data.val_proposals == "coco_2017_val_box_proposals_ee0dad.npz"
