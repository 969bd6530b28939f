"""Values of Detectron2's keys that there is no counterpart for."""

import pytest

from mrcnn_jax.config.detectron2.defaults import DEFAULTS
from mrcnn_jax.config.detectron2.unsupported import ONLY, problems

CROP = {"INPUT.CROP.ENABLED": True}
CLIP = {"SOLVER.CLIP_GRADIENTS.ENABLED": True}


@pytest.mark.parametrize("key", ONLY)
def test_each_value_without_a_counterpart_is_refused(key):
    settings = {
        **DEFAULTS,
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.MASK_ON": True,
        "MODEL.KEYPOINT_ON": True,
        key: "another",
    }
    assert key in {problem.key for problem in problems(settings)}


def test_heads_that_the_model_lacks_may_have_any_values():
    settings = {
        **DEFAULTS,
        "MODEL.ROI_MASK_HEAD.NAME": "Another",
        "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "Other",
    }
    assert not list(problems(settings))
    assert list(problems({**settings, "MODEL.MASK_ON": True}))


CASCADE = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ("res2", "res3", "res4", "res5"),
    "MODEL.FPN.IN_FEATURES": ("res2", "res3", "res4", "res5"),
    "MODEL.ANCHOR_GENERATOR.SIZES": ((32,), (64,), (128,), (256,), (512,)),
    "MODEL.RPN.IN_FEATURES": ("p2", "p3", "p4", "p5", "p6"),
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ("p2", "p3", "p4", "p5"),
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}


@pytest.mark.parametrize(
    ("settings", "key", "rule"),
    [
        (
            {**CASCADE, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False},
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
            "must be True in a cascade",
        ),
        (
            {**CASCADE, "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0.5, 0.6)},
            "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
            "must be one for each of IOUS, (0.5, 0.6)",
        ),
        (
            {**CASCADE, "MODEL.ROI_HEADS.IOU_THRESHOLDS": (0.6,)},
            "MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
            "must begin with MODEL.ROI_HEADS.IOU_THRESHOLDS, (0.6,)",
        ),
        ({"MODEL.RESNETS.RES2_OUT_CHANNELS": 128}, "MODEL.RESNETS.RES2_OUT_CHANNELS", "must be 256, 4 times"),
        ({"MODEL.RESNETS.STEM_OUT_CHANNELS": 0}, "MODEL.RESNETS.STEM_OUT_CHANNELS", "must be positive"),
        (
            {
                "MODEL.RESNETS.WIDTH_PER_GROUP": 3,
                "MODEL.RESNETS.STEM_OUT_CHANNELS": 128,
                "MODEL.RESNETS.RES2_OUT_CHANNELS": 512,
            },
            "MODEL.RESNETS.WIDTH_PER_GROUP",
            "must be a multiple of a 64th of MODEL.RESNETS.STEM_OUT_CHANNELS, 128",
        ),
        ({"MODEL.RESNETS.RES5_DILATION": 2}, "MODEL.RESNETS.RES5_DILATION", "must be 1, or 2 where"),
        ({"MODEL.RESNETS.OUT_FEATURES": ("res5",)}, "MODEL.RESNETS.OUT_FEATURES", "must be ('res4',) with"),
        ({"MODEL.RPN.CONV_DIMS": (-1, 64)}, "MODEL.RPN.CONV_DIMS", "must be -1 for each convolution"),
        (
            {"MODEL.ANCHOR_GENERATOR.SIZES": ((32,), (64,))},
            "MODEL.ANCHOR_GENERATOR.SIZES",
            "must be one list of sizes, for the only map",
        ),
        ({"MODEL.LOAD_PROPOSALS": True}, "MODEL.LOAD_PROPOSALS", "must be False with this"),
        (
            {"SOLVER.WEIGHT_DECAY_BIAS": 0.5, "MODEL.RESNETS.NORM": "BN"},
            "SOLVER.WEIGHT_DECAY_BIAS",
            "must be SOLVER.WEIGHT_DECAY, 0 or None if that is 0, or with norms that decay otherwise",
        ),
        ({"SOLVER.WEIGHT_DECAY_BIAS": -0.5}, "SOLVER.WEIGHT_DECAY_BIAS", "must not be negative"),
        (
            CASCADE | {"MODEL.ANCHOR_GENERATOR.SIZES": ((32,), (64,), (128,), (256,), (512, 600))},
            "MODEL.ANCHOR_GENERATOR.SIZES",
            "must be one list of sizes for each map of the pyramid, equally long, or one for all",
        ),
        (
            {"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True},
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
            "must be False without MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE",
        ),
        (
            {
                "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
                "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
                "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 0,
            },
            "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES",
            "must be positive",
        ),
        (
            {"DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_SQRT": False},
            "DATALOADER.REPEAT_SQRT",
            "must be True",
        ),
        (
            {"DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD": 2.0},
            "DATALOADER.REPEAT_THRESHOLD",
            "must be between 0 and 1",
        ),
        ({**CROP, "INPUT.CROP.TYPE": "random"}, "INPUT.CROP.TYPE", "must be 'relative' or 'relative_range'"),
        ({**CROP, "INPUT.CROP.SIZE": (0.9,)}, "INPUT.CROP.SIZE", "must be two numbers"),
        (
            {"INPUT.RANDOM_FLIP": "vertical", "MODEL.KEYPOINT_ON": True},
            "INPUT.RANDOM_FLIP",
            "must be 'horizontal' or 'none' with keypoints",
        ),
        ({"INPUT.MAX_SIZE_TRAIN": 0}, "INPUT.MAX_SIZE_TRAIN", "must be positive"),
        ({"INPUT.MIN_SIZE_TEST": 0}, "INPUT.MIN_SIZE_TEST", "must be positive: images are always resized"),
        (
            {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.BASE_LR_END": 0.5},
            "SOLVER.BASE_LR_END",
            "must be between 0 and SOLVER.BASE_LR, 0.001",
        ),
        (
            {**CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model"},
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
            "must be 'value'",
        ),
        (
            {**CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm", "SOLVER.CLIP_GRADIENTS.NORM_TYPE": 1.0},
            "SOLVER.CLIP_GRADIENTS.NORM_TYPE",
            "must be 2.0",
        ),
        (
            {**CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.0},
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
            "must be positive",
        ),
        (
            {"TEST.PRECISE_BN.ENABLED": True, "TEST.PRECISE_BN.NUM_ITER": 0},
            "TEST.PRECISE_BN.NUM_ITER",
            "must be positive",
        ),
        ({"MODEL.RPN.IOU_THRESHOLDS": (0.3,)}, "MODEL.RPN.IOU_THRESHOLDS", "must be two"),
        ({"MODEL.ROI_HEADS.IOU_THRESHOLDS": ()}, "MODEL.ROI_HEADS.IOU_THRESHOLDS", "must be one"),
        (
            {"INPUT.MIN_SIZE_TRAIN_SAMPLING": "range"},
            "INPUT.MIN_SIZE_TRAIN",
            "must be the two ends of the range",
        ),
        (
            {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2},
            "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
            "must be the same as MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
        ),
        (
            {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (512, 256)},
            "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
            "must be one number for all convolutions",
        ),
    ],
)
def test_values_that_do_not_go_together(settings, key, rule):
    (problem,) = problems({**DEFAULTS, **settings})
    assert problem.key == key
    assert rule in problem.rule
