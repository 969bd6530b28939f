"""Loads a pre-trained backbone; here ResNets with torchvision's, Detectron2's or Caffe2's names."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights import detectron2, torchvision
from mrcnn_jax.weights.files import find_arrays
from mrcnn_jax.weights.four_stages import load_four_stages
from mrcnn_jax.weights.layouts import Layout, conv, plain, read_model, shapes_of
from mrcnn_jax.weights.mismatches import architecture, differing_fields, other_project
from mrcnn_jax.weights.regnet import load_regnet
from mrcnn_jax.weights.vit import load_vit
from mrcnn_jax.weights.zoo import file_of

STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")

# Arrays that no published ResNet has: they keep their initial values, with which a non-local block is the
# identity, and nothing is deformed.
_NON_LOCAL = "backbone.non_local."
_OFFSETS = ".conv2.offset."

# The names of a ResNet's parts in the three systems. Others are of classifiers and pre-training heads.
_PARTS = re.compile(r"(conv1|bn1|layer\d|stem|res\d|res_conv1)[._]")

_STAGE5 = re.compile(r"(layer4|res5)[._]")

# Batch counters, and the stem's bias in Caffe2's files, which the batch norm cancels.
_UNUSED = re.compile(r".*num_batches_tracked|conv1_b")


def load_backbone(path: str | Path, blueprint: Blueprint) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The backbone's arrays in a weights file, and the stages (``STAGES``) that are missing from it.

    The file (see ``files.find_arrays``) holds a ResNet's state dict with the names of torchvision
    (``layer1.0.conv1.weight``), Detectron2 (``res2.0.conv1.weight``) or Caffe2 (``res2_0_branch2a_w``), under
    any key and with any prefix: a pre-training checkpoint, or a detector with the same backbone.
    Detectron2's MSRA and FAIR files have Caffe2's names; their norms have no statistics, i.e. mean 0 and
    variance 1. A stage that is missing entirely keeps its random initialisation. Stage 5 of a C4 model counts
    as a stage, and so does a non-local block ("non_local"), which is always missing. A published backbone's
    name, such as "torchvision/resnet50", stands for its file, which is downloaded once (see
    ``zoo.file_of``). ViTs are loaded by ``load_vit``, ConvNeXt and Swin by ``load_four_stages``, RegNets by
    ``load_regnet``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a weights file, it contains no backbone or several, it lacks a frozen
            stage, or its names or shapes do not fit the model.
        OSError: the file cannot be downloaded.
    """
    path = file_of(path)
    match blueprint.config.backbone.partition("_")[0]:
        case "vit":
            return load_vit(path, blueprint)
        case "convnext" | "swin":
            return load_four_stages(path, blueprint)
        case "regnetx" | "regnety":
            return load_regnet(path, blueprint)
    arrays = find_arrays(path, _known_names(blueprint)).arrays
    found = {
        name: array for name, array in arrays.items() if _PARTS.match(name) and not _UNUSED.fullmatch(name)
    }
    layouts = backbone_layouts(blueprint, found)
    stage_of = {layout.name: _in_resnet(name).split(".")[0] for name, layout in layouts.items()}
    present = {stage_of[name] for name in found if name in stage_of}
    has = set(stage_of.values())  # without heads, a C4 model has no stage 5
    absent = tuple(stage for stage in STAGES if stage in has and stage not in present)
    if "layer4" not in has:
        found = {name: array for name, array in found.items() if not _STAGE5.match(name)}
    frozen_stages = {stage_of[layouts[name].name] for name in layouts if name in blueprint.frozen_layers}
    if blueprint.config.non_local:
        absent += ("non_local",)
        frozen_stages |= {"non_local" for name in blueprint.frozen_layers if name.startswith(_NON_LOCAL)}
    frozen = [stage for stage in absent if stage in frozen_stages]
    if not present or frozen:
        missing = ", ".join(frozen or absent)
        if not present and (project := other_project(arrays)):
            raise ValueError(
                f"{path}: has the names of {project}\na backbone must be a ResNet or ResNeXt with the names "
                "of torchvision, Detectron2 or Caffe2"
            )
        raise ValueError(
            f"{path}: has no weights of {missing}, which would stay random; see model.backbone_frozen_stages "
            "and train.frozen"
        )
    wanted = {name: layout for name, layout in layouts.items() if stage_of[layout.name] not in absent}
    if _is_caffe2(found):
        found |= _statistics(wanted, epsilon=blueprint.config.backbone_norm_epsilon)
    try:
        ours = read_model(found, wanted, source=str(path))
    except ValueError as error:
        told = architecture({f"backbone.{name}": array for name, array in found.items()})
        theirs = {field: value for field, value in told.items() if field.startswith("backbone_")}
        raise ValueError(f"{error}{differing_fields(theirs, blueprint.config)[1]}") from error
    return {name: jnp.asarray(array) for name, array in ours.items()}, absent


def expected_input(config: ModelConfig) -> str:
    """Describes the input that the backbone must have been trained on; weights files do not record it."""
    pixels = f"{config.pixel_order} pixels, mean {config.pixel_mean}, std {config.pixel_std}"
    if config.backbone != "resnet":
        return pixels
    return f"{pixels}, strides in the {'1x1' if config.backbone_stride_in_1x1 else '3x3'} convolutions"


def backbone_layouts(blueprint: Blueprint, found: Mapping[str, np.ndarray]) -> dict[str, Layout]:
    """The layout of each of our ResNet's arrays in a file whose arrays are ``found``."""
    shapes = shapes_of(blueprint)
    norm = _caffe2_norm(blueprint)
    return {name: _layout(_in_resnet(name), shapes[name], found, norm) for name in _resnet_names(blueprint)}


def _resnet_names(blueprint: Blueprint) -> list[str]:
    """The names of the model's arrays that belong to a plain ResNet."""
    return [
        name
        for name in blueprint.shapes()
        if name.startswith(("backbone.", "res5."))
        and not name.startswith(_NON_LOCAL)
        and _OFFSETS not in name
    ]


def _in_resnet(name: str) -> str:
    """The name, within a ResNet, of one of the model's arrays."""
    part, _, rest = name.partition(".")
    return f"layer4.{rest}" if part == "res5" else rest


def _known_names(blueprint: Blueprint) -> set[str]:
    """The names of our ResNet's arrays in all three systems."""
    ours = [_in_resnet(name) for name in _resnet_names(blueprint)]
    in_caffe2 = partial(_caffe2_name, norm=_caffe2_norm(blueprint))
    namings = (torchvision.backbone_name, detectron2.backbone_name, in_caffe2)
    return {naming(name) for name in ours for naming in namings}


def _layout(name: str, shape: tuple[int, ...], found: Mapping[str, np.ndarray], norm: str) -> Layout:
    if _is_caffe2(found):
        their_name = _caffe2_name(name, norm)
    elif any(key.startswith(("stem.", "res2.")) for key in found):
        their_name = detectron2.backbone_name(name)
    else:
        their_name = torchvision.backbone_name(name)
    return conv(their_name, shape) if len(shape) == 4 else plain(their_name, shape)


def _is_caffe2(found: Mapping[str, np.ndarray]) -> bool:
    return "res_conv1_bn_s" in found or "conv1_gn_s" in found


def _caffe2_norm(blueprint: Blueprint) -> str:
    """How Caffe2's names call the model's norms."""
    return "gn" if blueprint.config.backbone_norm == "group" else "bn"


def _caffe2_name(name: str, norm: str) -> str:
    """Caffe2's name of an array of our ``ResNet``: "layer1.0.bn2.scale" is "res2_0_branch2b_bn_s"."""
    module, leaf = name.rsplit(".", 1)
    leaf = {"kernel": "w", "scale": "s", "bias": "b", "mean": "mean", "var": "var"}[leaf]
    if module in ("conv1", "bn1"):
        of_norm = "conv1_gn" if norm == "gn" else "res_conv1_bn"
        return f"conv1_{leaf}" if module == "conv1" else f"{of_norm}_{leaf}"
    layer, block, unit = module.split(".", 2)
    branches = {"downsample.0": "1", "downsample.1": f"1_{norm}"}
    branches |= {f"conv{number}": f"2{letter}" for number, letter in enumerate("abc", start=1)}
    branches |= {f"bn{number}": f"2{letter}_{norm}" for number, letter in enumerate("abc", start=1)}
    return f"res{int(layer.removeprefix('layer')) + 1}_{block}_branch{branches[unit]}_{leaf}"


def _statistics(wanted: Mapping[str, Layout], *, epsilon: float) -> dict[str, np.ndarray]:
    """Means and variances that have no effect, for norms whose statistics are merged into scale and bias."""
    values = {"_mean": 0.0, "_var": 1.0 - epsilon}
    return {
        layout.name: np.full(layout.shape, value, np.float32)
        for layout in wanted.values()
        for ending, value in values.items()
        if layout.name.endswith(ending)
    }
