"""Detectron2's YAML files as configs: what their keys are here, and what is refused."""

import re

import pytest

from mrcnn_jax.config import presets
from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.detectron2.convert import _SAME, WITHOUT_EFFECT, to_config
from mrcnn_jax.config.detectron2.defaults import DEFAULTS
from mrcnn_jax.config.detectron2.files import read_settings
from mrcnn_jax.config.detectron2.unsupported import ONLY, problems
from mrcnn_jax.config.io import differences, validate
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, config_of
from tests.config.detectron2.test_unsupported import CASCADE, CROP

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


class _Recorded(dict):
    """Settings that remember which keys were read."""

    def __init__(self, settings):
        super().__init__(settings)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)


CANVASES = presets.detectron2().data.canvases


def test_every_key_is_read_or_known_to_change_nothing(zoo):
    names = ["COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x", "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x"]
    names += ["COCO-Detection/fast_rcnn_R_50_FPN_1x", "Misc/cascade_mask_rcnn_R_50_FPN_1x"]
    names += ["LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"]
    head = "MODEL.ROI_BOX_HEAD"
    switched_on = {"TEST.AUG.ENABLED": True, f"{head}.USE_SIGMOID_CE": True, f"{head}.USE_FED_LOSS": True}
    clip = "SOLVER.CLIP_GRADIENTS"
    switched_on |= {f"{clip}.ENABLED": True, f"{clip}.CLIP_TYPE": "norm", "TEST.PRECISE_BN.ENABLED": True}
    read = {"SOLVER.BASE_LR_END", "SOLVER.NUM_DECAYS"}  # of other schedules: test_solver.py
    for name in (*names, "Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5"):
        settings = _Recorded(read_settings(zoo / f"{name}.yaml") | switched_on | CROP)
        assert not list(problems(settings))
        to_config(settings)
        read |= settings.read
    read.add("MODEL.ROI_BOX_HEAD.CONV_DIM")  # of a head with convolutions
    assert read | WITHOUT_EFFECT == DEFAULTS.keys()
    assert not read & WITHOUT_EFFECT
    assert not _SAME.keys() & ONLY.keys()


def test_training_values_that_are_refused_do_not_reach_the_config_of_prediction(write):
    path = write(
        """
        INPUT: {MAX_SIZE_TRAIN: -1}
        TEST: {PRECISE_BN: {ENABLED: True, NUM_ITER: -1}}
        SOLVER:
          {BASE_LR: 0.1, BASE_LR_END: 1, LR_SCHEDULER_NAME: WarmupCosineLR,
           CLIP_GRADIENTS: {ENABLED: True, CLIP_VALUE: -1}}
        """
    )
    with pytest.raises(ValueError, match=r"BASE_LR_END is 1\.0; must be between 0 and") as error:
        read_config(path)
    assert f"--config={path}:inference reads what prediction needs" in str(error.value)
    validate(read_config(path, for_inference=True))


def test_rate_and_decay_of_biases():
    """Of all of them, also those of normalisation, as in Detectron2's ``get_default_optimizer_params``."""
    train = to_config({**DEFAULTS, "SOLVER.BIAS_LR_FACTOR": 2.0, "SOLVER.WEIGHT_DECAY_BIAS": 0.0}).train
    assert train.rate_factors == (("*.bias", 2.0),) and train.weight_decay_factors == (("*.bias", 0.0),)
    other = {**DEFAULTS, "SOLVER.WEIGHT_DECAY": 0.001, "SOLVER.WEIGHT_DECAY_BIAS": 0.0005}
    assert to_config(other).train.weight_decay_factors == (("*.bias", 0.5),)
    assert not list(problems(other))
    plain = to_config(DEFAULTS).train
    assert plain.rate_factors == plain.weight_decay_factors == ()


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (
            {"INPUT.MIN_SIZE_TRAIN_SAMPLING": "range", "INPUT.MIN_SIZE_TRAIN": (640, 643)},
            {"data.train_short_sides": (640, 641, 642, 643)},
        ),
        (
            {"INPUT.MIN_SIZE_TEST": 900, "INPUT.MAX_SIZE_TEST": 1500, "INPUT.MAX_SIZE_TRAIN": 1500},
            {
                "data.canvases": ((928, 1504), (1504, 928)),
                "data.test_short_side": 900,
                "data.long_side": 1500,
            },
        ),
        (
            {
                "INPUT.MAX_SIZE_TRAIN": 1440,
                "MODEL.RPN.LOSS_WEIGHT": 0.5,
                "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 3.0,
            },
            {
                "data.train_long_side": 1440,
                "data.canvases": ((800, 1440), (1440, 800)),
                "train.rpn_objectness_weight": 0.5,
                "train.rpn_box_loss_weight": 1.5,
            },
        ),
        ({"INPUT.MAX_SIZE_TRAIN": 1024}, {"data.train_long_side": 1024}),
        ({"SOLVER.REFERENCE_WORLD_SIZE": 8}, {}),
        ({"INPUT.RANDOM_FLIP": "vertical"}, {"data.flip": False, "data.flip_vertical": True}),
        (CROP, {"data.crop": "relative_range", "data.canvases": (*CANVASES, (1344, 1344))}),
        (
            {**CROP, "INPUT.CROP.TYPE": "absolute", "INPUT.CROP.SIZE": (384, 600)},
            {"data.crop": "absolute", "data.crop_size": (384.0, 600.0)},
        ),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": (32, 64.5)}, {"model.anchor_sizes": (32.0, 64.5)}),
        (
            {
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE": (False, True, True, True),
                "MODEL.RESNETS.DEFORM_MODULATED": True,
                "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
                "MODEL.ROI_HEADS.IN_FEATURES": ("res5",),
                "MODEL.RPN.IN_FEATURES": ("res5",),
                "MODEL.RESNETS.OUT_FEATURES": ("res5",),
                "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
            },
            {"model.backbone_deformable": "modulated", "model.features": "c5"},
        ),
        (
            {"MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou", "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 2.0},
            {"train.rpn_box_loss": "giou", "train.rpn_box_loss_weight": 2.0},
        ),
        (
            {"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou"},
            {"train.box_loss": "giou"},
        ),
        (
            {"MODEL.RPN.BBOX_REG_LOSS_TYPE": "diou", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "ciou"},
            {"train.rpn_box_loss": "diou", "train.box_loss": "ciou"},
        ),
        (
            {
                "SOLVER.WARMUP_METHOD": "constant",
                "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
                "MODEL.KEYPOINT_ON": True,
                "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": False,
            },
            {
                "model.keypoint": True,
                "data.min_keypoints": 1,
                "train.warmup": "constant",
                "train.roi_append_gt": False,
                "train.keypoint_normalizer": "fixed",
            },
        ),
        (
            {
                "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
                "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
                "MODEL.RESNETS.WIDTH_PER_GROUP": 8,  # in layer1, all of its channels; 64 here for every width
            },
            {"model.backbone_width": 8},
        ),
        ({"DATALOADER.REPEAT_THRESHOLD": 0.1}, {}),  # which the default sampler does not read
        (
            {
                "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
                "DATALOADER.REPEAT_THRESHOLD": 0.1,
                "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
                "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
                "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 1.0,
            },
            {
                "model.box_scores": "sigmoid",
                "data.repeat_threshold": 0.1,
                "train.federated_classes": 50,
                "train.federated_power": 1.0,
            },
        ),
        ({"SOLVER.AMP.ENABLED": True}, {"model.dtype": "bfloat16"}),
        ({"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR"}, {"train.schedule": "cosine"}),
        ({"SEED": 7}, {"train.seed": 7}),
        (
            {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (400, 800)},
            {"test.scales": (400, 800), "test.scales_long_side": 4000, "test.flip": True},
        ),
        ({"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool"}, {"model.roi_pooling": "pool"}),
        ({"MODEL.WEIGHTS": "mine/backbone.pth"}, {"model.backbone_weights": "mine/backbone.pth"}),
        (
            {"DATASETS.TRAIN": ("mine_train", "coco_2017_train"), "DATASETS.TEST": ("mine_val",)},
            {
                "data.train_images": "mine_train",
                "data.train_annotations": "mine_train.json",
                "data.more_train_images": ("train2017",),
                "data.more_train_annotations": ("annotations/instances_train2017.json",),
                "data.val_images": "mine_val",
                "data.val_annotations": "mine_val.json",
            },
        ),
    ],
)
def test_keys_that_become_several_fields_or_others(settings, fields):
    settings = {**DEFAULTS, **settings}
    assert not list(problems(settings))
    config = to_config(settings)
    validate(config)
    assert {name: value for name, (value, _) in differences(config, to_config(DEFAULTS)).items()} == fields


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        (
            ((16, 24), (32, 48), (64, 96), (128, 192), (256, 384)),
            (16, 24, 32, 48, 64, 96, 128, 192, 256, 384),
        ),
        ((32, 64.5), (32, 64.5) * 5),
    ],
)
def test_several_anchors_on_each_level(sizes, found):
    settings = {**DEFAULTS, **CASCADE, "MODEL.ROI_HEADS.NAME": "StandardROIHeads"}
    settings["MODEL.ANCHOR_GENERATOR.SIZES"] = sizes
    assert not list(problems(settings))
    config = to_config({**settings, "MODEL.FPN.FUSE_TYPE": "avg"})
    validate(config)
    assert config.model.anchor_sizes == found and config.model.fpn_fuse == "avg"


def test_proposals_are_looked_for_in_this_projects_format(zoo):
    data = read_config(zoo / "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml").data
    assert data.train_proposals == "coco_2017_train_box_proposals_21bc3a.npz"
    assert data.val_proposals == "coco_2017_val_box_proposals_ee0dad.npz"
