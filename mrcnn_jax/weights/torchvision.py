"""torchvision's detectors: names and layouts of their state dicts (``models/detection`` of 0.28)."""

import re
from collections.abc import Mapping

import numpy as np

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.layouts import (
    Layout,
    Shape,
    conv,
    deconv,
    linear,
    linear_of_map,
    plain,
    read_model,
    shapes_of,
    with_background,
    write_model,
)

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Names before torchvision 0.14, in the files of 2019: of what became a convolution with its activation.
_OLD_NAMES = [
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
]
_OLD_MASK_CONV = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)")


def from_torchvision(
    arrays: Mapping[str, np.ndarray], blueprint: Blueprint, *, source: str
) -> dict[str, np.ndarray]:
    """The arrays of the blueprint's model, by our names, from a state dict of torchvision's.

    Old names (before torchvision 0.14) are understood. What torchvision has for the background, whose boxes
    and masks nothing reads, is dropped. Raises ValueError with every mismatch, in torchvision's names;
    ``source`` says where the state dict is from.
    """
    renamed = {
        _new_name(name): array for name, array in arrays.items() if not name.endswith("num_batches_tracked")
    }
    return read_model(renamed, layouts(blueprint), source=source)


def to_torchvision(arrays: Mapping[str, np.ndarray], blueprint: Blueprint) -> dict[str, np.ndarray]:
    """A state dict that torchvision's ``load_state_dict(strict=True)`` takes, the background's boxes zero.

    It has no counts of batches (``num_batches_tracked``): torch adds them where they lack. Raises ValueError
    if torchvision has no such model: one without a pyramid, or with group norm.
    """
    config = blueprint.config
    problems = []
    if config.features != "fpn":
        problems.append(f"model.features is {config.features!r}; it must be 'fpn'")
    if config.backbone_stride_in_1x1:
        problems.append("model.backbone_stride_in_1x1 is True; torchvision has the stride in the 3x3")
    for field in ("backbone_norm", "fpn_norm", "box_norm", "mask_norm"):
        if getattr(config, field) == "group":
            problems.append(f"model.{field} is 'group'; torchvision has batch norm")
    if problems:
        raise ValueError("torchvision has no such model:\n  " + "\n  ".join(problems))
    return write_model(arrays, layouts(blueprint))


def backbone_name(name: str) -> str:
    """torchvision's name of an array of our ``ResNet``: of "layer1.0.bn2.scale", "layer1.0.bn2.weight"."""
    module, leaf = name.rsplit(".", 1)
    return f"{module}.{_LEAVES[leaf]}"


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = re.sub(f"^{old}$", new, name)
    if match := _OLD_MASK_CONV.fullmatch(name):
        name = f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    return name


def layouts(blueprint: Blueprint) -> dict[str, Layout]:
    """Where each of our arrays is in torchvision's state dict."""
    return {name: _layout(name, shape, blueprint) for name, shape in shapes_of(blueprint).items()}


def _layout(name: str, shape: Shape, blueprint: Blueprint) -> Layout:
    part, _, rest = name.partition(".")
    match part:
        case "backbone":
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
    leaf = _LEAVES[leaf]
    if module.startswith("fcs."):
        number = int(module.removeprefix("fcs."))
        # After convolutions there is a layer that flattens, and an activation behind each of these.
        there = str(config.box_convs + 1 + 2 * number) if config.box_convs else f"fc{6 + number}"
        there = f"roi_heads.box_head.{there}.{leaf}"
        if leaf == "bias":
            return plain(there, shape)
        if number == 0:
            return linear_of_map(there, shape, channels=config.fpn_channels)
        return linear(there, shape)
    there = f"roi_heads.box_predictor.{module}.{leaf}"
    layout = plain(there, shape) if leaf == "bias" else linear(there, shape)
    return with_background(layout, 4) if module == "bbox_pred" else layout


def _mask_layout(name: str, shape: Shape) -> Layout:
    if name.startswith("convs."):
        return _conv_or_vector("roi_heads.mask_head." + _unit(name.removeprefix("convs.layers.")), shape)
    module, leaf = name.rsplit(".", 1)
    there = f"roi_heads.mask_predictor.{module}.{_LEAVES[leaf]}"
    if (module, leaf) == ("conv5_mask", "kernel"):
        return deconv(there, shape)
    layout = conv(there, shape) if leaf == "kernel" else plain(there, shape)
    return with_background(layout, 1) if module == "mask_fcn_logits" else layout


def _keypoint_layout(name: str, shape: Shape) -> Layout:
    module, leaf = name.rsplit(".", 1)
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.conv", module):
        # Between them there are activations.
        return _conv_or_vector(f"roi_heads.keypoint_head.{2 * int(match[1])}.{leaf}", shape)
    there = f"roi_heads.keypoint_predictor.{module}.{_LEAVES[leaf]}"
    return deconv(there, shape) if leaf == "kernel" else plain(there, shape)


def _unit(name: str) -> str:
    """A ``ConvNorm`` as torchvision's ``Conv2dNormActivation``: convolution 0, norm 1."""
    return name.replace(".conv.", ".0.").replace(".norm.", ".1.")


def _conv_or_vector(name: str, shape: Shape) -> Layout:
    module, leaf = name.rsplit(".", 1)
    there = f"{module}.{_LEAVES[leaf]}"
    return conv(there, shape) if leaf == "kernel" else plain(there, shape)
