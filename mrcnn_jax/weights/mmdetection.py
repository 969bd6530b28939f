"""MMDetection's two-stage detectors: names and layouts in the files of its model zoo (versions 2 and 3)."""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.four_stages import mmdetection_layout
from mrcnn_jax.weights.layouts import (
    LEAVES,
    Layout,
    Shape,
    background_last,
    conv,
    deconv,
    linear,
    linear_after_flatten,
    plain,
    read_model,
    shapes_of,
)

# The offsets of files made by mmcv before its layers had a version of 2.
_OLD_OFFSETS = re.compile(r"\.conv2_offset\.(weight|bias)$")


def from_mmdetection(
    arrays: Mapping[str, np.ndarray], blueprint: Blueprint, *, source: str
) -> dict[str, np.ndarray]:
    """The arrays of the blueprint's model, by our names, from the "state_dict" of a file of MMDetection.

    Raises ValueError that describes the mismatches, with MMDetection's names, or if MMDetection has no such
    model; ``source`` is named in the message.
    """
    found = {
        _OLD_OFFSETS.sub(r".conv2.conv_offset.\1", name): array
        for name, array in arrays.items()
        if not name.endswith((".num_batches_tracked", ".relative_position_index"))
    }
    return read_model(found, layouts(blueprint), source=source)


def layouts(blueprint: Blueprint) -> dict[str, Layout]:
    """The layout of each of our arrays in a file of MMDetection.

    Raises ValueError if MMDetection has no such model, or if its files are in an order that is not read here.
    """
    if problems := _problems(blueprint.config):
        raise ValueError("MMDetection has no such model:\n  " + "\n  ".join(problems))
    return {name: _layout(name, shape, blueprint.config) for name, shape in shapes_of(blueprint).items()}


def _problems(config: ModelConfig) -> list[str]:
    wanted = {
        "features": "fpn",
        "non_local": "",
        "keypoint": False,
        "mask_loss": "sigmoid",
        "mask_fcs": 0,
    }
    if config.backbone.startswith(("regnet", "vit_")):
        wanted["backbone"] = "resnet"
    if config.mask:
        wanted["mask_cascade"] = bool(config.box_cascade)
    return [
        f"model.{name} is {value!r}; it must be {plain_value!r}"
        for name, plain_value in wanted.items()
        if (value := getattr(config, name)) != plain_value
    ]


def _layout(name: str, shape: Shape, config: ModelConfig) -> Layout:
    part, _, rest = name.partition(".")
    if part == "backbone" and config.backbone != "resnet":
        layout = mmdetection_layout(rest, shape, config.backbone)
        return replace(layout, name=f"backbone.{layout.name}")
    module, _, leaf = rest.rpartition(".")
    leaf = LEAVES[leaf]
    match part:
        case "backbone":
            return _conv_or_vector(f"backbone.{_backbone_module(module, config)}.{leaf}", shape)
        case "fpn":
            kind, number, unit = module.split(".")
            their_kind = "lateral_convs" if kind == "inner" else "fpn_convs"
            their_unit = _unit(unit, config.fpn_norm)
            return _conv_or_vector(f"neck.{their_kind}.{number}.{their_unit}.{leaf}", shape)
        case "rpn":
            names = {"cls_logits": "rpn_cls", "bbox_pred": "rpn_reg", "convs.0": "rpn_conv"}
            if config.rpn_convs > 1:
                names |= {f"convs.{number}": f"rpn_conv.{number}.conv" for number in range(config.rpn_convs)}
            return _conv_or_vector(f"rpn_head.{names[module]}.{leaf}", shape)
        case "box_head" | "mask_head":
            stage = 0
        case "cascade_heads" | "cascade_mask_heads":
            number, _, module = module.partition(".")
            stage = int(number) + 1
        case _:
            raise ValueError(f"MMDetection has nothing like {name}")
    head = "mask_head" if "mask" in part else "bbox_head"
    prefix = f"roi_head.{head}.{stage}" if config.box_cascade else f"roi_head.{head}"
    if head == "mask_head":
        return _mask_layout(prefix, module, leaf, shape, config)
    return _box_layout(prefix, module, leaf, shape, config)


def _backbone_module(module: str, config: ModelConfig) -> str:
    module = module.replace("conv2.offset", "conv2.conv_offset")
    return re.sub(r"\bbn(\d)$", r"gn\1", module) if config.backbone_norm == "group" else module


def _box_layout(prefix: str, module: str, leaf: str, shape: Shape, config: ModelConfig) -> Layout:
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.(conv|norm)", module):
        unit = _unit(match[2], config.box_norm)
        return _conv_or_vector(f"{prefix}.shared_convs.{match[1]}.{unit}.{leaf}", shape)
    if match := re.fullmatch(r"fcs\.(\d+)", module):
        their_name = f"{prefix}.shared_fcs.{match[1]}.{leaf}"
        if leaf == "bias":
            return plain(their_name, shape)
        if match[1] == "0":
            return linear_after_flatten(their_name, shape, channels=shape[0] // config.box_pool_size**2)
        return linear(their_name, shape)
    names = {"cls_score": "fc_cls", "bbox_pred": "fc_reg"}
    their_name = f"{prefix}.{names[module]}.{leaf}"
    layout = plain(their_name, shape) if leaf == "bias" else linear(their_name, shape)
    return background_last(layout) if module == "cls_score" else layout


def _mask_layout(prefix: str, module: str, leaf: str, shape: Shape, config: ModelConfig) -> Layout:
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.(conv|norm)", module):
        unit = _unit(match[2], config.mask_norm)
        return _conv_or_vector(f"{prefix}.convs.{match[1]}.{unit}.{leaf}", shape)
    names = {"conv5_mask": "upsample", "mask_fcn_logits": "conv_logits"}
    their_name = f"{prefix}.{names[module]}.{leaf}"
    if (module, leaf) == ("conv5_mask", "weight"):
        return deconv(their_name, shape)
    return _conv_or_vector(their_name, shape)


def _unit(unit: str, norm: str) -> str:
    """The name in mmcv's ``ConvModule`` of a part of our ``ConvNorm``, "conv" or "norm"."""
    return unit if unit == "conv" else "gn" if norm == "group" else "bn"


def _conv_or_vector(name: str, shape: Shape) -> Layout:
    return conv(name, shape) if len(shape) == 4 else plain(name, shape)
