"""Detectron2's models with seeded weights, for ``detectron2_peer.py``."""

import pickle
import sys
import tempfile
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2_seeded import seeded
from seeded import CLASSES, KEYPOINTS, factor

# A model of project ViTDet, whose own configuration is a program: what a YAML file can say of it.
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"
VITDET = {
    "MODEL.RPN.CONV_DIMS": [-1, -1],
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "LN",
    "MODEL.ROI_MASK_HEAD.NORM": "LN",
}
MODELS_OF_PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTDet/mask_rcnn_vitdet_b": (
        MASK_RCNN,
        VITDET
        | {
            "MODEL.BACKBONE.NAME": "vitdet_b",
            "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
            "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
            "INPUT.FORMAT": "RGB",
        },
    )
}

# The configurations that the narrow models start from, and options that differ between them.
TINY_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mask": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", {}),
    "keypoint": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x",
        {
            "MODEL.ROI_HEADS.NUM_CLASSES": 1,
            "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (16, 16),
            "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": KEYPOINTS,
        },
    ),
    "c4": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x",
        {
            "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]],
            "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
            # Few units, as a unit that rounding turns on or off shows in the gradients of res5.
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
        },
    ),
    "dc5": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x",
        {"MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]]},
    ),
    "c5": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x",
        {"MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]], "MODEL.RESNETS.RES5_DILATION": 1},
    ),
    "regnet": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        {"MODEL.BACKBONE.NAME": "narrow_regnety_fpn"},
    ),
    "vit": (
        MASK_RCNN,
        VITDET
        | {
            "MODEL.BACKBONE.NAME": "narrow_vitdet",
            "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 17_000,  # anchors of a padded image
            "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 40,  # few, so that rounding does not decide which there are
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
            "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
        },
    ),
    "deform": ("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5", {}),
    "giou": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou", {}),
    "agnostic": ("Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic", {}),
    "cascade": (
        "Misc/cascade_mask_rcnn_R_50_FPN_1x",
        {
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
            "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0.35, 0.45, 0.55),  # so that some are positive
        },
    ),
}
# Whose inference is another model's.
TRAINED_ONLY = ("giou",)
_NARROW = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [32], [64], [128], [256]],
    "MODEL.ROI_HEADS.NUM_CLASSES": CLASSES,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 2,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
}


def build_full(
    source: Path, model: str, weights: Path, options: dict[str, Any], *, gains: Sequence[str]
) -> Any:
    """Detectron2's predictor with the model of ``configs/<model>.yaml`` or ``.py``, and its weights' file.

    Of a program only the model is taken: the other settings are ``MASK_RCNN``'s, as in all of these.
    ``gains`` are further factors of the seeded weights (``seeded.factor``).
    """
    program = source / "configs" / f"{model}.py"
    config = load_config(source, MASK_RCNN if program.is_file() else model, weights, options)

    from detectron2.config import LazyConfig, instantiate
    from detectron2.engine import DefaultPredictor, defaults
    from detectron2.modeling import build_model

    if not program.is_file():
        write_weights(build_model(config), config.MODEL.PIXEL_STD, weights, gains=gains)
        return DefaultPredictor(config)
    settings = LazyConfig.load(str(program)).model
    write_weights(instantiate(settings), settings.pixel_std, weights, gains=gains)
    with mock.patch.object(defaults, "build_model", lambda _: instantiate(settings)):
        return DefaultPredictor(config)


def build_tiny(source: Path, kind: str, options: dict[str, Any]) -> Any:
    """Detectron2's predictor with a narrow model that has all parts of the full one."""
    model, of_kind = TINY_MODELS[kind]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pkl"
        config = load_config(source, model, weights, _NARROW | options | of_kind)

        from detectron2.engine import DefaultPredictor
        from detectron2.modeling import build_model
        from detectron2.modeling.poolers import ROIPooler

        write_weights(build_model(config), config.MODEL.PIXEL_STD, weights)
        predictor = DefaultPredictor(config)
    for module in predictor.model.modules():
        if isinstance(module, ROIPooler):
            module.canonical_box_size = 32  # so that small images have regions on all levels
    return predictor


def load_config(source: Path, model: str, weights: Path, options: dict[str, Any]) -> Any:
    """The configuration ``configs/<model>.yaml`` of Detectron2's source, for the CPU, with ``options`` set.

    Detectron2's compiled extension is not needed: torchvision has the ops that these models use.
    """
    sys.path.insert(0, str(source))
    deform_on_cpu()
    from detectron2.config import get_cfg

    register_narrow_regnet()
    register_vitdet("narrow_vitdet", channels=96, side=256)
    register_vitdet("vitdet_b", channels=768, side=1024)
    model, of_program = MODELS_OF_PROGRAMS.get(model, (model, {}))
    options = of_program | options
    config = get_cfg()
    config.merge_from_file(str(source / "configs" / f"{model}.yaml"))
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = str(weights)
    for name, value in options.items():
        config.merge_from_list([name, value])
    return config


def deform_on_cpu() -> None:
    """Makes deformable convolutions torchvision's, as Detectron2 does on a CPU, but for the gradient, too.

    They ask for the extension to be there.
    """
    sys.modules.setdefault("detectron2._C", types.ModuleType("detectron2._C"))
    from detectron2.layers import deform_conv
    from torchvision.ops import deform_conv2d

    def convolve(x: Any, offset: Any, weight: Any, stride: Any, padding: Any, dilation: Any, *_: Any) -> Any:
        return deform_conv2d(x, offset, weight, stride=stride, padding=padding, dilation=dilation)

    deform_conv.deform_conv = convolve


def register_narrow_regnet() -> None:
    """Makes "narrow_regnety_fpn" a backbone: RegNetY-4GF with an eighth of its channels, and a pyramid."""
    from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.regnet import AnyNet, ResBottleneckBlock, SimpleStem

    if "narrow_regnety_fpn" in BACKBONE_REGISTRY:
        return

    @BACKBONE_REGISTRY.register()
    def narrow_regnety_fpn(config: Any, _: Any) -> Any:
        stages = ["s1", "s2", "s3", "s4"]
        body = AnyNet(
            stem_class=SimpleStem,
            stem_width=4,
            block_class=ResBottleneckBlock,
            depths=[2, 6, 12, 2],
            widths=[16, 24, 64, 136],
            group_widths=[8] * 4,
            strides=[2] * 4,
            bottleneck_ratios=[1.0] * 4,
            se_ratio=0.25,
            activation_class=partial(torch.nn.ReLU, inplace=True),
            freeze_at=config.MODEL.BACKBONE.FREEZE_AT,
            norm="FrozenBN",
            out_features=stages,
        )
        channels = config.MODEL.FPN.OUT_CHANNELS
        return FPN(body, stages, channels, top_block=LastLevelMaxPool())


def register_vitdet(name: str, *, channels: int, side: int) -> None:
    """Makes ``name`` a backbone: ViT-B with so many channels, and the simple pyramid.

    Images are padded to a square of ``side`` pixels.
    """
    from detectron2.modeling import SimpleFeaturePyramid, ViT
    from detectron2.modeling.backbone import BACKBONE_REGISTRY
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    if name in BACKBONE_REGISTRY:
        return

    def vitdet(config: Any, _: Any) -> Any:
        net = ViT(
            img_size=1024,
            embed_dim=channels,
            depth=12,
            num_heads=12,
            window_size=14,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
            use_rel_pos=True,
        )
        return SimpleFeaturePyramid(
            net,
            "last_feat",
            config.MODEL.FPN.OUT_CHANNELS,
            scale_factors=(4.0, 2.0, 1.0, 0.5),
            top_block=LastLevelMaxPool(),
            norm="LN",
            square_pad=side,
        )

    vitdet.__name__ = name
    BACKBONE_REGISTRY.register(vitdet)


def vitdet_rates(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """``rates`` of every parameter in the recipe of ViT-B: factors of the learning rate and the decay."""
    from detectron2.modeling import get_vit_lr_decay_rate
    from detectron2.solver.build import get_default_optimizer_params

    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=1.0,
        weight_decay_norm=0.0,
        lr_factor_func=partial(get_vit_lr_decay_rate, num_layers=12, lr_decay_rate=0.7),
        overrides={"pos_embed": {"weight_decay": 0.0}},
    )
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    return {
        f"rates/{name}": np.array(of[id(parameter)], np.float32)
        for name, parameter in model.named_parameters()
    }


def write_weights(
    model: torch.nn.Module, pixel_std: list[float], path: Path, *, gains: Sequence[str] = ()
) -> None:
    """Writes seeded weights like a file of Detectron2's model zoo, which also holds the cell anchors."""
    arrays = {
        name: seeded(name, tuple(value.shape), pixel_std=float(np.mean(pixel_std)))
        if value.is_floating_point()
        else value.numpy()  # norms count their batches
        for name, value in model.state_dict().items()
    }
    for name, array in arrays.items():
        if array.dtype == np.float32:
            array *= factor(name, gains)
    if rpn := model.proposal_generator:  # Fast R-CNN has none
        for level, anchors in enumerate(rpn.anchor_generator.cell_anchors):
            arrays[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors.numpy()
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, file, protocol=2)
