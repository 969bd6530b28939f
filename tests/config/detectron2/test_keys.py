"""Single keys of Detectron2's YAML files: what they are here."""

import pytest

from mrcnn_jax.config import presets
from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.detectron2.convert import _SAME, WITHOUT_EFFECT, to_config
from mrcnn_jax.config.detectron2.defaults import DEFAULTS
from mrcnn_jax.config.detectron2.files import read_settings
from mrcnn_jax.config.detectron2.unsupported import ONLY, problems
from mrcnn_jax.config.io import differences, validate
from tests.config.detectron2.test_unsupported import CASCADE, CROP

CANVASES = presets.detectron2().data.canvases


class _Recorded(dict):
    """Settings that remember which keys were read."""

    def __init__(self, settings):
        super().__init__(settings)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)


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
