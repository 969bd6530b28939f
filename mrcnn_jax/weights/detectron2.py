"""Detectron2's detectors: names and layouts in the files of its model zoo."""

import re
from collections.abc import Mapping

import numpy as np

from mrcnn_jax.models.variables import Blueprint
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

# Other contents of some files: constants, which are in our config or, of the federated loss, come from the
# training images; and batch counters, which are not needed.
_NO_WEIGHTS = re.compile(
    r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+|.*\.num_batches_tracked"
    r"|roi_heads\.box_predictor\.(\d\.)?fed_loss_cls_weights"
)


def from_detectron2(
    arrays: Mapping[str, np.ndarray], blueprint: Blueprint, *, source: str
) -> dict[str, np.ndarray]:
    """The arrays of the blueprint's model, by our names, from the "model" of a Detectron2 file.

    Raises ValueError that describes the mismatches, with Detectron2's names, or if Detectron2 has no such
    model; ``source`` is named in the message.
    """
    found = {name: array for name, array in arrays.items() if not _NO_WEIGHTS.fullmatch(name)}
    return read_model(found, layouts(blueprint), source=source)


def layouts(blueprint: Blueprint) -> dict[str, Layout]:
    """The layout of each of our arrays in a Detectron2 file.

    Raises ValueError if Detectron2 has no such backbone or heads.
    """
    config = blueprint.config
    problems = [
        f"model.{name} is {value!r}; it must be {plain!r}"
        for name, plain in (("mask_loss", "sigmoid"), ("mask_fcs", 0), ("mask_cascade", False))
        if (value := getattr(config, name)) != plain
    ]
    if config.backbone.startswith(("convnext_", "swin_")):
        problems.append(f"model.backbone is {config.backbone!r}; it must be a ResNet, RegNet or ViT")
    if problems:
        raise ValueError("Detectron2 has no such model:\n  " + "\n  ".join(problems))
    return {name: _layout(name, shape, blueprint) for name, shape in shapes_of(blueprint).items()}


def backbone_name(name: str) -> str:
    """Detectron2's name of an array of our ``ResNet``: "layer1.0.bn2.bias" is "res2.0.conv2.norm.bias"."""
    module, leaf = name.rsplit(".", 1)
    module = re.sub(r"^(conv1|bn1)$", r"stem.\1", module)
    module = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", module)
    module = re.sub(r"bn(\d)$", r"conv\1.norm", module).replace("conv2.offset", "conv2_offset")
    module = module.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return f"{module}.{LEAVES[leaf]}"


def regnet_name(name: str) -> str:
    """Detectron2's name of an array of our ``RegNet``: "s1.0.a_norm.bias" is "s1.b1.f.a_bn.bias"."""
    module, leaf = name.rsplit(".", 1)
    module = {"stem": "stem.conv", "stem_norm": "stem.bn"}.get(module, module)
    if match := re.fullmatch(r"s(\d)\.(\d+)\.(.+)", module):
        units = {"downsample.0": "proj", "downsample.1": "bn"}
        units |= {"se.reduce": "f.se.f_ex.0", "se.expand": "f.se.f_ex.2"}
        unit = units.get(match[3], f"f.{match[3].replace('_norm', '_bn')}")
        module = f"s{match[1]}.b{int(match[2]) + 1}.{unit}"
    return f"{module}.{LEAVES[leaf]}"


def vit_layout(name: str, shape: Shape, *, prefix: str = "") -> Layout:
    """The layout of an array of our ``ViT``, named as in Detectron2 or, with no prefix, in MAE's files.

    Their first position is of the class token, which detection does without: it is dropped on reading, and
    zero on writing.
    """
    if name == "pos_embed":
        count, channels = shape[0] * shape[1], shape[2]
        return Layout(
            f"{prefix}pos_embed",
            (1, 1 + count, channels),
            read=lambda x: x[0, 1:].reshape(shape),
            write=lambda x: np.pad(x.reshape(count, channels), [(1, 0), (0, 0)])[None],
        )
    module, leaf = name.rsplit(".", 1)
    module = module.replace("patch_embed", "patch_embed.proj").replace(".fc", ".mlp.fc")
    their_name = f"{prefix}{module}.{LEAVES.get(leaf, leaf)}"
    if leaf == "kernel" and len(shape) == 2:
        return linear(their_name, shape)
    return _conv_or_vector(their_name, shape)


def _simple_pyramid_layout(module: str, leaf: str, shape: Shape) -> Layout:
    if module.startswith("up"):
        their_module = {"up2.0": "2.0", "up2_norm": "2.1", "up2.1": "2.3", "up3": "3.0"}[module]
    else:
        kind, number, unit = module.split(".")
        level = int(number) + 2
        first = {2: 4, 3: 1, 4: 0, 5: 1}[level]  # what precedes: deconvolutions, nothing, or a pooling
        place = first if kind == "inner" else first + 1
        their_module = f"{level}.{place}" + (".norm" if unit == "norm" else "")
    their_name = f"backbone.simfp_{their_module}.{leaf}"
    if module.startswith("up") and len(shape) == 4:
        return deconv(their_name, shape)
    return _conv_or_vector(their_name, shape)


def _layout(name: str, shape: Shape, blueprint: Blueprint) -> Layout:
    config = blueprint.config
    part, _, rest = name.partition(".")
    module, _, leaf = rest.rpartition(".")
    leaf = LEAVES.get(leaf, leaf)
    match part:
        case "backbone" if config.backbone.startswith("vit_"):
            return vit_layout(rest, shape, prefix="backbone.net.")
        case "backbone" if not rest.startswith("non_local."):
            body = "backbone.bottom_up." if config.features == "fpn" else "backbone."
            naming = backbone_name if config.backbone == "resnet" else regnet_name
            return _conv_or_vector(body + naming(rest), shape)
        case "res5":
            return _conv_or_vector("roi_heads." + backbone_name(f"layer4.{rest}"), shape)
        case "fpn" if config.backbone.startswith("vit_"):
            return _simple_pyramid_layout(module, leaf, shape)
        case "fpn":
            kind, number, unit = module.split(".")
            conv_name = f"backbone.fpn_{'lateral' if kind == 'inner' else 'output'}{int(number) + 2}"
            return _conv_or_vector(conv_name + (".norm." if unit == "norm" else ".") + leaf, shape)
        case "rpn":
            convs = ["conv"] if config.rpn_convs == 1 else [f"conv.conv{i}" for i in range(config.rpn_convs)]
            names = {f"convs.{i}": conv_name for i, conv_name in enumerate(convs)}
            names |= {"cls_logits": "objectness_logits", "bbox_pred": "anchor_deltas"}
            return _conv_or_vector(f"proposal_generator.rpn_head.{names[module]}.{leaf}", shape)
        case "box_head":
            return _box_layout(module, leaf, shape, blueprint, stage=0)
        case "cascade_heads":
            stage, _, module = module.partition(".")
            return _box_layout(module, leaf, shape, blueprint, stage=int(stage) + 1)
        case "mask_head" | "keypoint_head":
            return _map_layout(part, module, leaf, shape)
    raise ValueError(f"Detectron2 has nothing like {name}")


def _box_layout(module: str, leaf: str, shape: Shape, blueprint: Blueprint, *, stage: int) -> Layout:
    config = blueprint.config
    head, predictor = (
        f"roi_heads.{name}.{stage}" if config.box_cascade else f"roi_heads.{name}"
        for name in ("box_head", "box_predictor")
    )
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.(conv|norm)", module):
        unit = ".norm" if match[2] == "norm" else ""
        return _conv_or_vector(f"{head}.conv{int(match[1]) + 1}{unit}.{leaf}", shape)
    if match := re.fullmatch(r"fcs\.(\d+)", module):
        their_name = f"{head}.fc{int(match[1]) + 1}.{leaf}"
        if leaf == "bias":
            return plain(their_name, shape)
        if match[1] == "0":
            return linear_after_flatten(their_name, shape, channels=shape[0] // config.box_pool_size**2)
        return linear(their_name, shape)
    their_name = f"{predictor}.{module}.{leaf}"
    layout = plain(their_name, shape) if leaf == "bias" else linear(their_name, shape)
    return background_last(layout) if module == "cls_score" else layout


def _map_layout(head: str, module: str, leaf: str, shape: Shape) -> Layout:
    """The layout of an array of the mask or keypoint head."""
    if match := re.fullmatch(r"convs\.layers\.(\d+)\.(conv|norm)", module):
        kind = "mask_fcn" if head == "mask_head" else "conv_fcn"
        unit = ".norm" if match[2] == "norm" else ""
        return _conv_or_vector(f"roi_heads.{head}.{kind}{int(match[1]) + 1}{unit}.{leaf}", shape)
    names = {"conv5_mask": "deconv", "mask_fcn_logits": "predictor", "kps_score_lowres": "score_lowres"}
    their_name = f"roi_heads.{head}.{names[module]}.{leaf}"
    if leaf == "weight" and module != "mask_fcn_logits":
        return deconv(their_name, shape)
    return _conv_or_vector(their_name, shape)


def _conv_or_vector(name: str, shape: Shape) -> Layout:
    return conv(name, shape) if len(shape) == 4 else plain(name, shape)
