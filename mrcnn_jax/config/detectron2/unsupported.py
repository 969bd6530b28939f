"""Which values of Detectron2's keys there is no counterpart for."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Settings = Mapping[str, Any]

NORMS = {
    "": "",
    "FrozenBN": "frozen_batch",
    "BN": "batch",
    "SyncBN": "batch",
    "nnSyncBN": "batch",
    "GN": "group",
}
BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
CROPS = ("relative", "relative_range", "absolute", "absolute_range")
POOLERS = {"ROIAlignV2": ("align", True), "ROIAlign": ("align", False), "ROIPool": ("pool", True)}


class Problem(NamedTuple):
    """A key, what it must be, and whether prediction does without it."""

    key: str
    rule: str
    training: bool = False


class _Only(NamedTuple):
    values: tuple
    training: bool = False
    why: str = ""


def _only(*values: Any, why: str = "") -> _Only:
    return _Only(values, False, why)


def _in_training(*values: Any, why: str = "") -> _Only:
    return _Only(values, True, why)


# The keys that no field stands for, with the values that they may have.
ONLY = {
    "VERSION": _only(2, why="files of version 1 are Detectron's"),
    "MODEL.META_ARCHITECTURE": _only("GeneralizedRCNN", "ProposalNetwork"),
    "MODEL.BACKBONE.NAME": _only("build_resnet_backbone", "build_resnet_fpn_backbone"),
    "MODEL.RESNETS.NORM": _only(*(name for name in NORMS if name)),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": _only((False,) * 4, (False, True, True, True)),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": _only(1),
    "MODEL.FPN.IN_FEATURES": _only(("res2", "res3", "res4", "res5")),
    "MODEL.FPN.NORM": _only(*NORMS),
    "MODEL.FPN.FUSE_TYPE": _only("sum", "avg"),
    "MODEL.PROPOSAL_GENERATOR.NAME": _only("RPN", "PrecomputedProposals"),
    "MODEL.ANCHOR_GENERATOR.NAME": _only("DefaultAnchorGenerator"),
    "MODEL.ANCHOR_GENERATOR.OFFSET": _only(0.0),
    "MODEL.RPN.HEAD_NAME": _only("StandardRPNHead"),
    "MODEL.RPN.BOUNDARY_THRESH": _in_training(-1),
    "MODEL.RPN.IOU_LABELS": _in_training((0, -1, 1)),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _in_training(*BOX_LOSSES),
    "MODEL.ROI_HEADS.NAME": _only("StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads"),
    "MODEL.ROI_HEADS.IOU_LABELS": _in_training((0, 1)),
    "MODEL.ROI_BOX_HEAD.NORM": _only(*NORMS),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _only(*POOLERS),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _in_training(*BOX_LOSSES),
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": _in_training(False),
    "MODEL.ROI_MASK_HEAD.NAME": _only("MaskRCNNConvUpsampleHead"),
    "MODEL.ROI_MASK_HEAD.NORM": _only(*NORMS),
    "MODEL.ROI_KEYPOINT_HEAD.NAME": _only("KRCNNConvDeconvUpsampleHead"),
    "INPUT.FORMAT": _only("BGR", "RGB"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": _in_training("choice", "range"),
    "INPUT.RANDOM_FLIP": _in_training("horizontal", "vertical", "none"),
    "DATALOADER.SAMPLER_TRAIN": _in_training("TrainingSampler", "RepeatFactorTrainingSampler"),
    "SOLVER.LR_SCHEDULER_NAME": _in_training(
        "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
    ),
    "SOLVER.WARMUP_METHOD": _in_training("linear", "constant"),
    "SOLVER.RESCALE_INTERVAL": _in_training(False),
    "TEST.KEYPOINT_OKS_SIGMAS": _in_training(
        (), why="give them as the 'sigmas' of the annotations' category"
    ),
}


def problems(settings: Settings) -> Iterator[Problem]:
    """The keys that a model reads and that have values without a counterpart."""
    for key, only in ONLY.items():
        if _is_read(key, settings) and settings[key] not in only.values:
            rule = f"must be {' or '.join(map(repr, only.values))}"
            yield Problem(key, f"{rule}: {only.why}" if only.why else rule, only.training)
    yield from _architecture_problems(settings)
    yield from _head_problems(settings)
    if settings["INPUT.MIN_SIZE_TEST"] < 1:
        yield Problem("INPUT.MIN_SIZE_TEST", "must be positive: images are always resized")
    yield from _training_problems(settings)


def is_pyramid(settings: Settings) -> bool:
    return settings["MODEL.BACKBONE.NAME"] == "build_resnet_fpn_backbone"


def has_heads(settings: Settings) -> bool:
    return settings["MODEL.META_ARCHITECTURE"] != "ProposalNetwork"


def is_cascade(settings: Settings) -> bool:
    return has_heads(settings) and settings["MODEL.ROI_HEADS.NAME"] == "CascadeROIHeads"


def heads(settings: Settings) -> list[str]:
    """The sections of the heads that the model has."""
    if not has_heads(settings):
        return []
    found = ["MODEL.ROI_BOX_HEAD"]
    if settings["MODEL.MASK_ON"]:
        found.append("MODEL.ROI_MASK_HEAD")
    if settings["MODEL.KEYPOINT_ON"]:
        found.append("MODEL.ROI_KEYPOINT_HEAD")
    return found


def by_map(numbers: tuple) -> tuple[tuple, ...]:
    """The anchors' numbers, of each map or the same ones for all: ``(32, 64)`` is ``((32, 64),)``."""
    return numbers if all(isinstance(item, tuple) for item in numbers) else (numbers,)


def _is_read(key: str, settings: Settings) -> bool:
    section = key.rpartition(".")[0]
    if section == "MODEL.FPN":
        return is_pyramid(settings)
    if section == "MODEL.ROI_HEADS":
        return has_heads(settings)
    return not section.endswith("_HEAD") or section in heads(settings)


def _architecture_problems(settings: Settings) -> Iterator[Problem]:
    wide, stem = settings["MODEL.RESNETS.RES2_OUT_CHANNELS"], settings["MODEL.RESNETS.STEM_OUT_CHANNELS"]
    if stem < 1:
        yield Problem("MODEL.RESNETS.STEM_OUT_CHANNELS", "must be positive")
        return
    expansion = 1 if settings["MODEL.RESNETS.DEPTH"] < 50 else 4
    if wide != expansion * stem:
        yield Problem(
            "MODEL.RESNETS.RES2_OUT_CHANNELS",
            f"must be {expansion * stem}, {expansion} times MODEL.RESNETS.STEM_OUT_CHANNELS",
        )
    if 64 * settings["MODEL.RESNETS.WIDTH_PER_GROUP"] % stem:
        yield Problem(
            "MODEL.RESNETS.WIDTH_PER_GROUP",
            f"must be a multiple of a 64th of MODEL.RESNETS.STEM_OUT_CHANNELS, {stem}",
        )
    for key, value in _wanted_maps(settings).items():
        if settings[key] != value and not (key in ONLY and settings[key] not in ONLY[key].values):
            backbone = settings["MODEL.BACKBONE.NAME"]
            yield Problem(key, f"must be {value!r} with MODEL.BACKBONE.NAME {backbone!r}")
    dilatable = not is_pyramid(settings) and settings["MODEL.RESNETS.OUT_FEATURES"] == ("res5",)
    if settings["MODEL.RESNETS.RES5_DILATION"] not in ((1, 2) if dilatable else (1,)):
        yield Problem("MODEL.RESNETS.RES5_DILATION", "must be 1, or 2 where the only map is res5's")
    if any(channels != -1 for channels in settings["MODEL.RPN.CONV_DIMS"]):
        yield Problem("MODEL.RPN.CONV_DIMS", "must be -1 for each convolution: as many channels as its input")
    if len(set(by_map(settings["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]))) != 1:
        yield Problem("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "must be the same for all maps")
    sizes = by_map(settings["MODEL.ANCHOR_GENERATOR.SIZES"])
    maps = len(settings["MODEL.RPN.IN_FEATURES"])
    if is_pyramid(settings) and (len(sizes) not in (1, maps) or len({len(level) for level in sizes}) != 1):
        rule = "must be one list of sizes for each map of the pyramid, equally long, or one for all"
        yield Problem("MODEL.ANCHOR_GENERATOR.SIZES", rule)
    if not is_pyramid(settings) and len(sizes) != 1:
        yield Problem("MODEL.ANCHOR_GENERATOR.SIZES", "must be one list of sizes, for the only map")
    loads = settings["MODEL.LOAD_PROPOSALS"]
    if loads != (settings["MODEL.PROPOSAL_GENERATOR.NAME"] == "PrecomputedProposals"):
        yield Problem("MODEL.LOAD_PROPOSALS", f"must be {not loads} with this MODEL.PROPOSAL_GENERATOR.NAME")


def _wanted_maps(settings: Settings) -> Settings:
    """Which maps there are, and which of them the RPN and the heads read: FPN, C4, or C5 and DC5."""
    if is_pyramid(settings):
        outputs, maps, regions = "res2 res3 res4 res5", "p2 p3 p4 p5 p6", "p2 p3 p4 p5"
    else:
        is_c4 = settings["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeads" or (
            not has_heads(settings) and settings["MODEL.RPN.IN_FEATURES"] == ("res4",)
        )
        outputs = maps = regions = "res4" if is_c4 else "res5"
    wanted: dict[str, Any] = {
        "MODEL.RESNETS.OUT_FEATURES": tuple(outputs.split()),
        "MODEL.RPN.IN_FEATURES": tuple(maps.split()),
    }
    if has_heads(settings):
        wanted["MODEL.ROI_HEADS.IN_FEATURES"] = tuple(regions.split())
        standard = "CascadeROIHeads" if is_cascade(settings) else "StandardROIHeads"
        wanted["MODEL.ROI_HEADS.NAME"] = "Res5ROIHeads" if outputs == "res4" else standard
    return wanted


def _head_problems(settings: Settings) -> Iterator[Problem]:
    found = heads(settings)
    for name in ("POOLER_TYPE", "POOLER_SAMPLING_RATIO"):
        for section in found[1:]:
            if settings[f"{section}.{name}"] != settings[f"{found[0]}.{name}"]:
                yield Problem(f"{section}.{name}", f"must be the same as {found[0]}.{name}")
    if found and settings["MODEL.ROI_HEADS.NAME"] != "Res5ROIHeads":
        if settings["MODEL.ROI_BOX_HEAD.NAME"] != "FastRCNNConvFCHead":
            yield Problem("MODEL.ROI_BOX_HEAD.NAME", "must be 'FastRCNNConvFCHead'")
        if is_pyramid(settings):
            channels = settings["MODEL.FPN.OUT_CHANNELS"]
        else:
            channels = 8 * settings["MODEL.RESNETS.RES2_OUT_CHANNELS"]  # of res5
        if settings["MODEL.ROI_BOX_HEAD.NUM_CONV"] and settings["MODEL.ROI_BOX_HEAD.CONV_DIM"] != channels:
            yield Problem("MODEL.ROI_BOX_HEAD.CONV_DIM", f"must be {channels}, the channels of the maps")
    if is_cascade(settings):
        yield from _cascade_problems(settings)
    if "MODEL.ROI_KEYPOINT_HEAD" in found and len(set(settings["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"])) != 1:
        yield Problem("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "must be one number for all convolutions")


def _cascade_problems(settings: Settings) -> Iterator[Problem]:
    cascade = "MODEL.ROI_BOX_CASCADE_HEAD"
    ious, first = settings[f"{cascade}.IOUS"], settings["MODEL.ROI_HEADS.IOU_THRESHOLDS"]
    if not is_pyramid(settings):
        yield Problem("MODEL.ROI_HEADS.NAME", "must be another without a pyramid")
    if not settings["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"]:
        yield Problem("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "must be True in a cascade")
    if len(settings[f"{cascade}.BBOX_REG_WEIGHTS"]) != len(ious):
        yield Problem(f"{cascade}.BBOX_REG_WEIGHTS", f"must be one for each of IOUS, {ious}")
    if ious[:1] != first:
        yield Problem(f"{cascade}.IOUS", f"must begin with MODEL.ROI_HEADS.IOU_THRESHOLDS, {first}")


def _training_problems(settings: Settings) -> Iterator[Problem]:
    head = "MODEL.ROI_BOX_HEAD"
    if has_heads(settings) and settings[f"{head}.USE_FED_LOSS"]:
        if not settings[f"{head}.USE_SIGMOID_CE"]:
            yield Problem(
                f"{head}.USE_FED_LOSS", f"must be False without {head}.USE_SIGMOID_CE", training=True
            )
        if settings[f"{head}.FED_LOSS_NUM_CLASSES"] < 1:
            yield Problem(f"{head}.FED_LOSS_NUM_CLASSES", "must be positive", training=True)
    if settings["DATALOADER.SAMPLER_TRAIN"] == "RepeatFactorTrainingSampler":
        if not settings["DATALOADER.REPEAT_SQRT"]:
            yield Problem("DATALOADER.REPEAT_SQRT", "must be True", training=True)
        if not 0 <= settings["DATALOADER.REPEAT_THRESHOLD"] <= 1:
            yield Problem("DATALOADER.REPEAT_THRESHOLD", "must be between 0 and 1", training=True)
    yield from _solver_problems(settings)
    if len(settings["MODEL.ROI_HEADS.IOU_THRESHOLDS"]) != 1:
        yield Problem("MODEL.ROI_HEADS.IOU_THRESHOLDS", "must be one", training=True)
    if len(settings["MODEL.RPN.IOU_THRESHOLDS"]) != 2:
        yield Problem("MODEL.RPN.IOU_THRESHOLDS", "must be two", training=True)
    if settings["INPUT.MAX_SIZE_TRAIN"] < 1:
        yield Problem("INPUT.MAX_SIZE_TRAIN", "must be positive", training=True)
    if settings["INPUT.MIN_SIZE_TRAIN_SAMPLING"] == "range" and len(settings["INPUT.MIN_SIZE_TRAIN"]) != 2:
        yield Problem("INPUT.MIN_SIZE_TRAIN", "must be the two ends of the range", training=True)
    if settings["INPUT.CROP.ENABLED"] and settings["INPUT.CROP.TYPE"] not in CROPS:
        rule = f"must be {' or '.join(map(repr, CROPS))}"
        yield Problem("INPUT.CROP.TYPE", rule, training=True)
    if settings["INPUT.CROP.ENABLED"] and len(settings["INPUT.CROP.SIZE"]) != 2:
        yield Problem("INPUT.CROP.SIZE", "must be two numbers", training=True)
    if settings["INPUT.RANDOM_FLIP"] == "vertical" and settings["MODEL.KEYPOINT_ON"]:
        rule = "must be 'horizontal' or 'none' with keypoints: Detectron2 does not exchange left and right"
        yield Problem("INPUT.RANDOM_FLIP", rule, training=True)


def _has_trained_norms(settings: Settings) -> bool:
    sections = ["MODEL.RESNETS", "MODEL.FPN", *heads(settings)]
    return any(settings.get(f"{section}.NORM", "") not in ("", "FrozenBN") for section in sections)


def _solver_problems(settings: Settings) -> Iterator[Problem]:
    if settings["TEST.PRECISE_BN.ENABLED"] and settings["TEST.PRECISE_BN.NUM_ITER"] < 1:
        yield Problem("TEST.PRECISE_BN.NUM_ITER", "must be positive", training=True)
    bias_decay, decay = settings["SOLVER.WEIGHT_DECAY_BIAS"], settings["SOLVER.WEIGHT_DECAY"]
    if bias_decay is not None and bias_decay < 0:
        yield Problem("SOLVER.WEIGHT_DECAY_BIAS", "must not be negative", training=True)
    # Our factor for biases multiplies WEIGHT_DECAY_NORM in norms; Detectron2 decays their biases as others.
    of_norms = _has_trained_norms(settings) and settings["SOLVER.WEIGHT_DECAY_NORM"] != decay
    if bias_decay not in (None, 0, decay) and bias_decay > 0 and (decay == 0 or of_norms):
        rule = "must be SOLVER.WEIGHT_DECAY, 0 or None if that is 0, or with norms that decay otherwise"
        yield Problem("SOLVER.WEIGHT_DECAY_BIAS", rule, training=True)
    rate, is_cosine = settings["SOLVER.BASE_LR"], settings["SOLVER.LR_SCHEDULER_NAME"] == "WarmupCosineLR"
    if is_cosine and not 0 <= settings["SOLVER.BASE_LR_END"] <= rate:
        yield Problem("SOLVER.BASE_LR_END", f"must be between 0 and SOLVER.BASE_LR, {rate}", training=True)
    clip = "SOLVER.CLIP_GRADIENTS"
    if settings[f"{clip}.ENABLED"]:
        kind = settings[f"{clip}.CLIP_TYPE"]
        if kind not in ("value", "norm"):
            yield Problem(f"{clip}.CLIP_TYPE", "must be 'value' or 'norm'", training=True)
        if kind == "norm" and settings[f"{clip}.NORM_TYPE"] != 2:
            yield Problem(f"{clip}.NORM_TYPE", "must be 2.0", training=True)
        if settings[f"{clip}.CLIP_VALUE"] <= 0:
            yield Problem(f"{clip}.CLIP_VALUE", "must be positive", training=True)
