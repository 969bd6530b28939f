"""What each key of Detectron2's configs is in a ``Config``."""

import re
from pathlib import Path

from mrcnn_jax.config import Config, presets
from mrcnn_jax.config.detectron2.datasets import set_datasets
from mrcnn_jax.config.detectron2.files import read_settings
from mrcnn_jax.config.detectron2.unsupported import (
    BOX_LOSSES,
    NORMS,
    POOLERS,
    Settings,
    by_map,
    has_heads,
    heads,
    is_cascade,
    is_pyramid,
    problems,
)
from mrcnn_jax.config.limits import CANVAS_UNIT

# Keys with the same meaning as a field.
_SAME = {
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "MODEL.MASK_ON": "model.mask",
    "MODEL.KEYPOINT_ON": "model.keypoint",
    "MODEL.BACKBONE.FREEZE_AT": "model.backbone_frozen_stages",
    "MODEL.RESNETS.DEPTH": "model.backbone_depth",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "model.backbone_width",
    "MODEL.RESNETS.NUM_GROUPS": "model.backbone_groups",
    "MODEL.RESNETS.STRIDE_IN_1X1": "model.backbone_stride_in_1x1",
    "MODEL.FPN.OUT_CHANNELS": "model.fpn_channels",
    "MODEL.RPN.BBOX_REG_WEIGHTS": "model.rpn_box_weights",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "train.rpn_samples",
    "MODEL.RPN.POSITIVE_FRACTION": "train.rpn_positive_fraction",
    "MODEL.RPN.LOSS_WEIGHT": "train.rpn_objectness_weight",
    "MODEL.RPN.SMOOTH_L1_BETA": "train.rpn_beta",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "train.roi_samples",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "train.roi_positive_fraction",
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": "train.roi_append_gt",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "test.score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "test.nms_iou",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "model.box_weights",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": "train.box_loss_weight",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": "train.federated_power",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "train.box_beta",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "model.box_pool_size",
    "MODEL.ROI_BOX_HEAD.NUM_FC": "model.box_fcs",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "model.box_channels",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": "model.box_convs",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": "model.box_agnostic",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": "model.mask_pool_size",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": "model.mask_convs",
    "MODEL.ROI_MASK_HEAD.CONV_DIM": "model.mask_channels",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": "model.keypoint_pool_size",
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": "train.keypoint_weight",
    "INPUT.MIN_SIZE_TEST": "data.test_short_side",
    "INPUT.MAX_SIZE_TEST": "data.long_side",
    "SOLVER.MAX_ITER": "train.steps",
    "SOLVER.BASE_LR": "train.learning_rate",
    "SOLVER.MOMENTUM": "train.momentum",
    "SOLVER.NESTEROV": "train.nesterov",
    "SOLVER.WEIGHT_DECAY": "train.weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "train.weight_decay_norm",
    "SOLVER.GAMMA": "train.decay_factor",
    "SOLVER.STEPS": "train.decay_steps",
    "SOLVER.WARMUP_FACTOR": "train.warmup_factor",
    "SOLVER.WARMUP_ITERS": "train.warmup_steps",
    "SOLVER.CHECKPOINT_PERIOD": "train.checkpoint_every",
    "SOLVER.IMS_PER_BATCH": "train.batch_size",
    "TEST.EVAL_PERIOD": "train.eval_every",
    "TEST.DETECTIONS_PER_IMAGE": "test.detections",
}

# Keys that change nothing here: how Detectron2 runs, details of what must be off (``unsupported.py``), and
# the numbers of categories and keypoints, which come from the data.
WITHOUT_EFFECT = frozenset(
    (
        *("OUTPUT_DIR", "CUDNN_BENCHMARK", "FLOAT32_PRECISION", "VIS_PERIOD", "GLOBAL.HACK", "MODEL.DEVICE"),
        *("DATALOADER.NUM_WORKERS", "DATALOADER.ASPECT_RATIO_GROUPING", "INPUT.MASK_FORMAT"),
        *("TEST.EXPECTED_RESULTS", "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"),
        "MODEL.ANCHOR_GENERATOR.ANGLES",
        "SOLVER.REFERENCE_WORLD_SIZE",  # for which the other settings hold, however many devices there are
    )
)

_IMAGENET = re.compile(r"(?:detectron2|catalog)://ImageNetPretrained/(.+?)(?:\.pkl)?")


def read_config(path: Path, *, for_inference: bool = False) -> Config:
    """The config of a YAML file of Detectron2 and of the files that it is based on.

    With ``for_inference`` keys that only training reads may have values that there is no counterpart for; the
    fields that belong to these keep their defaults. Raises the errors of ``read_settings``, and ValueError
    with every key that has no counterpart here.
    """
    settings = read_settings(path)
    found = [problem for problem in problems(settings) if not (for_inference and problem.training)]
    if found:
        lines = [f"{path}: {key} is {settings[key]!r}; {rule}" for key, rule, _ in found]
        if all(problem.training for problem in found):
            lines.append(f"--config={path}:inference reads what prediction needs, without these")
        raise ValueError("\n".join(lines))
    return to_config(settings)


def to_config(settings: Settings) -> Config:
    """The config that these values of all keys stand for; they have no ``problems``."""
    config = presets.detectron2()
    for key, field in _SAME.items():
        section, name = field.split(".")
        setattr(getattr(config, section), name, settings[key])
    _set_features(config, settings)
    _set_heads(config, settings)
    _set_proposals(config, settings)
    _set_data(config, settings)
    _set_training(config, settings)
    return config


def _set_features(config: Config, settings: Settings) -> None:
    model = config.model
    model.pixel_order = settings["INPUT.FORMAT"].lower()
    model.backbone_group_width = 64 * settings["MODEL.RESNETS.WIDTH_PER_GROUP"] // model.backbone_width
    if any(settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]):
        model.backbone_deformable = "modulated" if settings["MODEL.RESNETS.DEFORM_MODULATED"] else "plain"
    model.backbone_norm = NORMS[settings["MODEL.RESNETS.NORM"]]
    if is_pyramid(settings):
        model.features = "fpn"
        model.fpn_norm = NORMS[settings["MODEL.FPN.NORM"]]
        model.fpn_fuse = settings["MODEL.FPN.FUSE_TYPE"]
        sizes = by_map(settings["MODEL.ANCHOR_GENERATOR.SIZES"])
        levels = sizes * (len(settings["MODEL.RPN.IN_FEATURES"]) // len(sizes))  # one list is for all
        model.anchor_sizes = tuple(float(size) for level in levels for size in level)
    else:
        dilated = settings["MODEL.RESNETS.RES5_DILATION"] == 2
        res4 = settings["MODEL.RESNETS.OUT_FEATURES"] == ("res4",)
        model.features = "c4" if res4 else "dc5" if dilated else "c5"
        model.padding_multiple = 1  # of a map without a pyramid Detectron2 pads nothing
        model.anchor_sizes = tuple(map(float, by_map(settings["MODEL.ANCHOR_GENERATOR.SIZES"])[0]))
    model.anchor_ratios = tuple(map(float, by_map(settings["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"])[0]))
    weights = settings["MODEL.WEIGHTS"]
    imagenet = _IMAGENET.fullmatch(weights)
    model.backbone_weights = f"detectron2/{imagenet[1]}" if imagenet else weights


def _set_heads(config: Config, settings: Settings) -> None:
    model = config.model
    model.box = has_heads(settings)
    for section in heads(settings)[:1]:
        model.roi_pooling, model.roi_aligned = POOLERS[settings[f"{section}.POOLER_TYPE"]]
        model.roi_sampling_ratio = settings[f"{section}.POOLER_SAMPLING_RATIO"]
    if is_cascade(settings):
        model.box_weights, *further = settings["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"]
        model.box_cascade = tuple(further)
        config.train.cascade_positive_ious = settings["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"][1:]
    model.box_norm = NORMS[settings["MODEL.ROI_BOX_HEAD.NORM"]]
    if model.box and settings["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE"]:
        model.box_scores = "sigmoid"
    if model.mask:
        model.mask_norm = NORMS[settings["MODEL.ROI_MASK_HEAD.NORM"]]
        model.mask_agnostic = settings["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"]
    if model.keypoint:
        convs = settings["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"]
        model.keypoint_convs, model.keypoint_channels = len(convs), convs[0]
        if not settings["MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS"]:
            config.train.keypoint_normalizer = "fixed"
        config.data.min_keypoints = settings["MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"]


def _set_proposals(config: Config, settings: Settings) -> None:
    model, train, test = config.model, config.train, config.test
    model.rpn = not settings["MODEL.LOAD_PROPOSALS"]
    model.rpn_convs = len(settings["MODEL.RPN.CONV_DIMS"])
    model.rpn_smallest_side = float(settings["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"])
    train.rpn_nms_iou = test.rpn_nms_iou = settings["MODEL.RPN.NMS_THRESH"]
    test.rpn_pre_nms = settings["MODEL.RPN.PRE_NMS_TOPK_TEST"]
    train.rpn_pre_nms = settings["MODEL.RPN.PRE_NMS_TOPK_TRAIN"]
    if not model.rpn:
        train.rpn_post_nms = settings["DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN"]
        test.rpn_post_nms = settings["DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST"]
        return
    train.rpn_post_nms = settings["MODEL.RPN.POST_NMS_TOPK_TRAIN"]
    test.rpn_post_nms = settings["MODEL.RPN.POST_NMS_TOPK_TEST"]
    if not model.box:
        # Only mrcnn-jax propose --split=train reads these: Detectron2 makes the proposals that its Fast R-CNN
        # is trained on with the limits for tests, too.
        train.rpn_pre_nms, train.rpn_post_nms = test.rpn_pre_nms, test.rpn_post_nms


def _set_data(config: Config, settings: Settings) -> None:
    data, test = config.data, config.test
    set_datasets(data, settings)
    sides = settings["INPUT.MIN_SIZE_TRAIN"]
    if settings["INPUT.MIN_SIZE_TRAIN_SAMPLING"] == "range":
        sides = tuple(range(sides[0], sides[-1] + 1))
    data.train_short_sides = sides
    if (longest := settings["INPUT.MAX_SIZE_TRAIN"]) != data.long_side and longest > 0:
        data.train_long_side = longest
    if settings["INPUT.CROP.ENABLED"]:
        data.crop = settings["INPUT.CROP.TYPE"]
        first, second = settings["INPUT.CROP.SIZE"]
        data.crop_size = float(first), float(second)
    _set_canvases(config)
    data.flip = settings["INPUT.RANDOM_FLIP"] == "horizontal"
    data.flip_vertical = settings["INPUT.RANDOM_FLIP"] == "vertical"
    if settings["DATALOADER.SAMPLER_TRAIN"] == "RepeatFactorTrainingSampler":
        data.repeat_threshold = settings["DATALOADER.REPEAT_THRESHOLD"]
    data.keep_empty = not settings["DATALOADER.FILTER_EMPTY_ANNOTATIONS"]
    if settings["TEST.AUG.ENABLED"]:
        test.scales = settings["TEST.AUG.MIN_SIZES"]
        test.scales_long_side = settings["TEST.AUG.MAX_SIZE"]
        test.flip = settings["TEST.AUG.FLIP"]


def _set_canvases(config: Config) -> None:
    """Keeps the canvases for COCO's sizes where images of the largest size fit them; else there are two.

    Parts of images, of a random height and width, may be so high or wide that they need a square one.
    """
    data = config.data
    train_long = data.train_long_side or data.long_side
    short = max(min(max(data.train_short_sides), train_long), min(data.test_short_side, data.long_side))
    long = max(train_long, data.long_side)
    height, width = (-(-side // CANVAS_UNIT) * CANVAS_UNIT for side in (short, long))
    if height > data.canvases[0][0] or width > data.canvases[0][1]:
        data.canvases = ((height, width), (width, height))
    if data.crop.endswith("_range"):
        data.canvases = (*data.canvases, (width, width))


def _set_training(config: Config, settings: Settings) -> None:
    train = config.train
    train.rpn_negative_iou, train.rpn_positive_iou = settings["MODEL.RPN.IOU_THRESHOLDS"][:2]
    (train.roi_positive_iou,) = settings["MODEL.ROI_HEADS.IOU_THRESHOLDS"][:1]
    if (loss := settings["MODEL.RPN.BBOX_REG_LOSS_TYPE"]) in BOX_LOSSES:
        train.rpn_box_loss = loss
    train.rpn_box_loss_weight = settings["MODEL.RPN.BBOX_REG_LOSS_WEIGHT"] * settings["MODEL.RPN.LOSS_WEIGHT"]
    if (loss := settings["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"]) in BOX_LOSSES:
        train.box_loss = loss
    if config.model.box and settings["MODEL.ROI_BOX_HEAD.USE_FED_LOSS"]:
        train.federated_classes = settings["MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES"]
    match settings["SOLVER.LR_SCHEDULER_NAME"]:
        case "WarmupCosineLR":
            train.schedule = "cosine"
            if 0 < (end := settings["SOLVER.BASE_LR_END"]) <= train.learning_rate:
                train.cosine_end = end / train.learning_rate
        case "WarmupStepWithFixedGammaLR":  # in parts of equal length
            parts = settings["SOLVER.NUM_DECAYS"] + 1
            train.decay_steps = tuple(-(-train.steps * part // parts) for part in range(1, parts))
    largest = settings["SOLVER.CLIP_GRADIENTS.CLIP_VALUE"]
    if settings["SOLVER.CLIP_GRADIENTS.ENABLED"] and largest > 0:
        if settings["SOLVER.CLIP_GRADIENTS.CLIP_TYPE"] == "norm":
            train.clip_array_norm = largest
        else:
            train.clip_value = largest
    if (factor := settings["SOLVER.BIAS_LR_FACTOR"]) != 1:
        train.rate_factors = (("*.bias", factor),)
    bias_decay = settings["SOLVER.WEIGHT_DECAY_BIAS"]
    if bias_decay == 0:
        train.weight_decay_factors = (("*.bias", 0.0),)
    elif bias_decay is not None and bias_decay != train.weight_decay > 0:
        train.weight_decay_factors = (("*.bias", max(bias_decay, 0) / train.weight_decay),)
    if settings["SOLVER.WARMUP_METHOD"] == "constant":
        train.warmup = "constant"
    if settings["TEST.PRECISE_BN.ENABLED"]:
        train.precise_bn = max(settings["TEST.PRECISE_BN.NUM_ITER"], 0)
    if settings["SOLVER.AMP.ENABLED"]:
        config.model.dtype = "bfloat16"  # float16 in Detectron2
    train.seed = max(settings["SEED"], 0)  # -1 is a new seed for every run in Detectron2
