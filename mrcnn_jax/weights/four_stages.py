"""ConvNeXt and Swin by the names of torchvision, of the papers' code, and in MMDetection's detectors."""

import re
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.files import find_arrays
from mrcnn_jax.weights.layouts import Layout, Shape, conv, linear, plain, read_model, shapes_of
from mrcnn_jax.weights.mismatches import other_project

_BACKBONE = "backbone."
_NORMS = "norms."  # of the outputs, which only detectors have

# The names of the backbone's parts in either system. Others are of classifiers.
_PARTS = re.compile(r"(features|downsample_layers|stages|patch_embed|layers|norm[0-3])\.")

# Constants of Swin, which are computed from its sizes.
_UNUSED = re.compile(r".*\.(relative_position_index|attn_mask)")

# torchvision's numbers of the layers in a block.
_CONVNEXT_BLOCK = {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3", "pwconv2": "block.5"}
_SWIN_BLOCK = {"fc1": "mlp.0", "fc2": "mlp.3"}


def load_four_stages(path: str | Path, blueprint: Blueprint) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The backbone's arrays in a weights file, and what is missing from it: the outputs' norms, or nothing.

    The file (see ``files.find_arrays``) holds a state dict under any key and with any prefix, with the names
    of torchvision (``features.1.0.block.0.weight``), of ConvNeXt's authors (``stages.0.0.dwconv.weight``) or
    of Swin's (``layers.0.blocks.0.attn.qkv.weight``). ImageNet classifiers have no norms of the outputs,
    which then keep their initial values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a weights file, or its names or shapes do not fit the model.
    """
    path, backbone = Path(path), blueprint.config.backbone
    ours = {
        name.removeprefix(_BACKBONE): shape
        for name, shape in shapes_of(blueprint).items()
        if name.startswith(_BACKBONE)
    }
    of_author = {name: author_layout(name, shape, backbone) for name, shape in ours.items()}
    of_torchvision = {
        name: torchvision_layout(name, shape, backbone)
        for name, shape in ours.items()
        if not name.startswith(_NORMS)
    }
    known = {layout.name for layouts in (of_author, of_torchvision) for layout in layouts.values()}
    arrays = find_arrays(path, known).arrays
    found = {
        name: array for name, array in arrays.items() if _PARTS.match(name) and not _UNUSED.fullmatch(name)
    }
    if not known & found.keys():
        names = f"has the names of {project}" if (project := other_project(arrays)) else "has other names"
        raise ValueError(
            f"{path}: {names}\na backbone must be {backbone!r} with the names of torchvision or of the "
            "paper's code"
        )
    layouts = of_torchvision if any(name.startswith("features.") for name in found) else of_author
    absent: tuple[str, ...] = ()
    if not any(re.match(r"norm\d\.", name) for name in found):
        absent = ("the outputs' norms",)
        layouts = {name: layout for name, layout in layouts.items() if not name.startswith(_NORMS)}
    read = read_model(found, layouts, source=str(path))
    return {f"{_BACKBONE}{name}": jnp.asarray(array) for name, array in read.items()}, absent


def torchvision_layout(name: str, shape: Shape, backbone: str) -> Layout:
    """The layout in torchvision, whose ``features`` are the stem, a stage, a downsampling, a stage, ..."""
    is_swin = backbone.startswith("swin")
    module, leaf = name.rpartition(".")[::2]
    if module in ("stem", "stem_norm"):
        their_module = f"0.{0 if module == 'stem' else 2 if is_swin else 1}"
    elif match := re.fullmatch(r"stages\.(\d)\.downsample\.(\w+)", module):
        unit = match[2] if is_swin else {"norm": "0", "conv": "1"}[match[2]]
        their_module = f"{2 * int(match[1])}.{unit}"
    else:
        stage, block, unit = _place(module)
        unit = (_SWIN_BLOCK if is_swin else _CONVNEXT_BLOCK).get(unit, unit)
        their_module = f"{2 * stage + 1}.{block}.{unit}".rstrip(".")
    if leaf == "gamma":
        return Layout(
            f"features.{their_module}.layer_scale",
            (*shape, 1, 1),
            read=lambda x: x.reshape(shape),
            write=lambda x: x[:, None, None],
        )
    return _layout(f"features.{their_module}", leaf, shape)


def author_layout(name: str, shape: Shape, backbone: str) -> Layout:
    """The layout in the code of the paper's authors, for classifiers and detectors."""
    is_swin = backbone.startswith("swin")
    module, leaf = name.rpartition(".")[::2]
    if module in ("stem", "stem_norm"):
        units = ("patch_embed.proj", "patch_embed.norm")
        if not is_swin:
            units = ("downsample_layers.0.0", "downsample_layers.0.1")
        their_module = units[module == "stem_norm"]
    elif module.startswith(_NORMS):
        their_module = module.replace("norms.", "norm")
    elif match := re.fullmatch(r"stages\.(\d)\.downsample\.(\w+)", module):
        if is_swin:
            their_module = f"layers.{int(match[1]) - 1}.downsample.{match[2]}"
        else:
            their_module = f"downsample_layers.{match[1]}.{('norm', 'conv').index(match[2])}"
    else:
        stage, block, unit = _place(module)
        if is_swin:
            their_module = f"layers.{stage}.blocks.{block}.{unit.replace('fc', 'mlp.fc')}"
        else:
            their_module = f"stages.{stage}.{block}.{unit}".rstrip(".")
    return _layout(their_module, leaf, shape)


_MMDETECTION_CONVNEXT = {
    "dwconv": "depthwise_conv",
    "pwconv1": "pointwise_conv1",
    "pwconv2": "pointwise_conv2",
}
_MMDETECTION_SWIN = {"attn": "attn.w_msa", "fc1": "ffn.layers.0.0", "fc2": "ffn.layers.1"}


def mmdetection_layout(name: str, shape: Shape, backbone: str) -> Layout:
    """The layout in MMDetection's Swin, or in MMPretrain's ConvNeXt, which its detectors have."""
    if not backbone.startswith("swin"):
        layout = author_layout(name, shape, backbone)
        parts = layout.name.split(".")
        return replace(layout, name=".".join(_MMDETECTION_CONVNEXT.get(part, part) for part in parts))
    module, leaf = name.rpartition(".")[::2]
    if module in ("stem", "stem_norm"):
        unit = "projection" if module == "stem" else "norm"
        return _layout(f"patch_embed.{unit}", leaf, shape)
    if module.startswith(_NORMS):
        return _layout(module.replace("norms.", "norm"), leaf, shape)
    if match := re.fullmatch(r"stages\.(\d)\.downsample\.(\w+)", module):
        layout = _layout(f"stages.{int(match[1]) - 1}.downsample.{match[2]}", leaf, shape)
        return _with_neighbouring_cells(layout, shape)
    stage, block, unit = _place(module)
    first, dot, rest = unit.partition(".")
    their_unit = _MMDETECTION_SWIN.get(first, first) + dot + rest
    return _layout(f"stages.{stage}.blocks.{block}.{their_unit}", leaf, shape)


def _with_neighbouring_cells(layout: Layout, shape: Shape) -> Layout:
    """``layout``, whose inputs are the channels of 2 x 2 cells.

    They are ordered by column, row and channel here, by channel, row and column there.
    """
    ours = (2, 2, shape[0] // 4, *shape[1:])
    theirs = (ours[2], 2, 2, *shape[1:])

    def swap(x: np.ndarray, axes: Shape) -> np.ndarray:
        return x.reshape(axes).swapaxes(0, 2).reshape(shape)

    return replace(
        layout,
        read=lambda x: swap(layout.read(x), theirs),
        write=lambda x: layout.write(swap(x, ours)),
    )


def _place(module: str) -> tuple[int, int, str]:
    """The stage and block of a module, and its name there; "" for the block itself."""
    _, stage, _, block, *unit = module.split(".")
    return int(stage), int(block), ".".join(unit)


def _layout(module: str, leaf: str, shape: Shape) -> Layout:
    their_name = f"{module}.{'weight' if leaf in ('kernel', 'scale') else leaf}"
    if leaf != "kernel":
        return plain(their_name, shape)
    return conv(their_name, shape) if len(shape) == 4 else linear(their_name, shape)
