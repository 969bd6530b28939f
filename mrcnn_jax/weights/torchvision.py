"""torchvision's detectors: names and layouts in their state dicts (``models/detection`` of 0.28)."""

import re
from collections.abc import Mapping

import numpy as np

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.layouts import (
    LEAVES,
    Layout,
    Shape,
    conv,
    deconv,
    linear,
    linear_after_flatten,
    plain,
    read_model,
    shapes_of,
    with_background,
    write_model,
)

# Names before torchvision 0.14 (the files of 2019) of layers that are now convolution-activation blocks.
_OLD_NAMES = [
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
]
_OLD_MASK_CONV = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)")


def from_torchvision(
    arrays: Mapping[str, np.ndarray], blueprint: Blueprint, *, source: str
) -> dict[str, np.ndarray]:
    """The arrays of the blueprint's model, by our names, from a torchvision state dict.

    Old names (before torchvision 0.14) are accepted. torchvision's unused box and mask weights of the
    background are dropped. Raises ValueError that describes the mismatches, with torchvision's names;
    ``source`` is named in the message.
    """
    renamed = {
        _new_name(name): array for name, array in arrays.items() if not name.endswith("num_batches_tracked")
    }
    return read_model(renamed, layouts(blueprint), source=source)


def to_torchvision(arrays: Mapping[str, np.ndarray], blueprint: Blueprint) -> dict[str, np.ndarray]:
    """A state dict for torchvision's ``load_state_dict(strict=True)``; background boxes and masks are zero.

    It has no batch counters (``num_batches_tracked``): torch adds missing ones. Raises ValueError if
    torchvision has no such model, see ``check_in_torchvision``.
    """
    check_in_torchvision(blueprint.config)
    return write_model(arrays, layouts(blueprint))


def check_in_torchvision(config: ModelConfig) -> None:
    """Raises ValueError if torchvision has no such model, e.g. one without a pyramid or with group norm."""
    problems = []
    for field in ("rpn", "box"):
        if not getattr(config, field):
            problems.append(f"model.{field} is False; torchvision's detectors have an RPN and a box head")
    if config.features != "fpn":
        problems.append(f"model.features is {config.features!r}; it must be 'fpn'")
    problems += _backbone_problems(config)
    if config.box_scores != "softmax":
        problems.append(f"model.box_scores is {config.box_scores!r}; it must be 'softmax'")
    if config.backbone_deformable:
        problems.append(f"model.backbone_deformable is {config.backbone_deformable!r}; it must be ''")
    if config.non_local:
        problems.append(f"model.non_local is {config.non_local!r}; it must be ''")
    if config.backbone_stride_in_1x1:
        problems.append("model.backbone_stride_in_1x1 is True; torchvision has the stride in the 3x3")
    for field in ("backbone_norm", "fpn_norm", "box_norm", "mask_norm"):
        if getattr(config, field) == "group":
            problems.append(f"model.{field} is 'group'; torchvision has batch norm")
    _raise_if_any(problems + _head_problems(config))


def _backbone_problems(config: ModelConfig) -> list[str]:
    """What torchvision's detectors do not have as backbones, whose arrays have no names there."""
    backbone = config.backbone
    return [] if backbone == "resnet" else [f"model.backbone is {backbone!r}; it must be 'resnet'"]


def _head_problems(config: ModelConfig) -> list[str]:
    """What torchvision's heads do not have, whose arrays would fit none of its names or shapes."""
    wanted = {
        "box_agnostic": False,
        "box_cascade": (),
        "mask_agnostic": False,
        "mask_cascade": False,
        "mask_loss": "sigmoid",
        "mask_fcs": 0,
    }
    return [
        f"model.{name} is {value!r}; it must be {plain!r}"
        for name, plain in wanted.items()
        if (value := getattr(config, name)) != plain
    ]


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        raise ValueError("torchvision has no such model:\n  " + "\n  ".join(problems))


def backbone_name(name: str) -> str:
    """torchvision's name of an array of our ``ResNet``: "layer1.0.bn2.scale" is "layer1.0.bn2.weight"."""
    module, leaf = name.rsplit(".", 1)
    return f"{module}.{LEAVES[leaf]}"


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = re.sub(f"^{old}$", new, name)
    if match := _OLD_MASK_CONV.fullmatch(name):
        name = f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    return name


def layouts(blueprint: Blueprint) -> dict[str, Layout]:
    """The layout of each of our arrays in torchvision's state dict.

    Raises ValueError if torchvision has no such backbone or heads.
    """
    _raise_if_any(_backbone_problems(blueprint.config) + _head_problems(blueprint.config))
    return {name: _layout(name, shape, blueprint) for name, shape in shapes_of(blueprint).items()}


def _layout(name: str, shape: Shape, blueprint: Blueprint) -> Layout:
    part, _, rest = name.partition(".")
    match part:
        case "backbone" if not rest.startswith("non_local."):
            return _conv_or_vector(f"backbone.body.{rest}", shape)
        case "fpn":
            rest = re.sub(r"^(inner|layer)\.(\d+)", r"\1_blocks.\2", rest)
            return _conv_or_vector(f"backbone.fpn.{_unit(rest)}", shape)
        case "rpn":
            return _conv_or_vector("rpn.head." + re.sub(r"^convs\.(\d+)", r"conv.\1.0", rest), shape)
        case "box_head":
            return _box_layout(rest, shape, blueprint)
        case "mask_head":
            return _mask_layout(rest, shape)
        case "keypoint_head":
            return _keypoint_layout(rest, shape)
    raise ValueError(f"torchvision has nothing like {name}")


def _box_layout(name: str, shape: Shape, blueprint: Blueprint) -> Layout:
    config = blueprint.config
    if name.startswith("convs."):
        return _conv_or_vector("roi_heads.box_head." + _unit(name.removeprefix("convs.layers.")), shape)
    module, leaf = name.rsplit(".", 1)
    leaf = LEAVES[leaf]
    if module.startswith("fcs."):
        number = int(module.removeprefix("fcs."))
        # The convolutions are followed by a flatten layer, and each linear layer by an activation.
        module = str(config.box_convs + 1 + 2 * number) if config.box_convs else f"fc{6 + number}"
        their_name = f"roi_heads.box_head.{module}.{leaf}"
        if leaf == "bias":
            return plain(their_name, shape)
        if number == 0:
            return linear_after_flatten(their_name, shape, channels=config.fpn_channels)
        return linear(their_name, shape)
    their_name = f"roi_heads.box_predictor.{module}.{leaf}"
    layout = plain(their_name, shape) if leaf == "bias" else linear(their_name, shape)
    return with_background(layout, 4) if module == "bbox_pred" else layout


def _mask_layout(name: str, shape: Shape) -> Layout:
    if name.startswith("convs."):
        return _conv_or_vector("roi_heads.mask_head." + _unit(name.removeprefix("convs.layers.")), shape)
    module, leaf = name.rsplit(".", 1)
    their_name = f"roi_heads.mask_predictor.{module}.{LEAVES[leaf]}"
    if (module, leaf) == ("conv5_mask", "kernel"):
        return deconv(their_name, shape)
    layout = conv(their_name, shape) if leaf == "kernel" else plain(their_name, shape)
    return with_background(layout, 1) if module == "mask_fcn_logits" else layout


def _keypoint_layout(name: str, shape: Shape) -> Layout:
    module, leaf = name.rsplit(".", 1)
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.conv", module):
        # Convolutions alternate with activations.
        return _conv_or_vector(f"roi_heads.keypoint_head.{2 * int(match[1])}.{leaf}", shape)
    their_name = f"roi_heads.keypoint_predictor.{module}.{LEAVES[leaf]}"
    return deconv(their_name, shape) if leaf == "kernel" else plain(their_name, shape)


def _unit(name: str) -> str:
    """The name in torchvision's ``Conv2dNormActivation`` of a part of our ``ConvNorm``: conv 0, norm 1."""
    return name.replace(".conv.", ".0.").replace(".norm.", ".1.")


def _conv_or_vector(name: str, shape: Shape) -> Layout:
    module, leaf = name.rsplit(".", 1)
    their_name = f"{module}.{LEAVES[leaf]}"
    return conv(their_name, shape) if leaf == "kernel" else plain(their_name, shape)
