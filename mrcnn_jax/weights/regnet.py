"""Loads a pre-trained RegNet with torchvision's names or those of pycls, which are Detectron2's, too."""

import re
from pathlib import Path

import jax.numpy as jnp
from jax import Array

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.detectron2 import regnet_name
from mrcnn_jax.weights.files import find_arrays
from mrcnn_jax.weights.layouts import LEAVES, Layout, Shape, conv, plain, read_model, shapes_of
from mrcnn_jax.weights.mismatches import other_project

_BACKBONE = "backbone."

# The names of the parts in either system. Others are of classifiers and detectors.
_PARTS = re.compile(r"(stem|trunk_output|s[1-4])\.")

_UNUSED = re.compile(r".*\.num_batches_tracked")

# torchvision's names of what a block has.
_UNITS = {
    "downsample.0": "proj.0",
    "downsample.1": "proj.1",
    "se.reduce": "f.se.fc1",
    "se.expand": "f.se.fc2",
}
_UNITS |= {letter: f"f.{letter}.0" for letter in "abc"} | {
    f"{letter}_norm": f"f.{letter}.1" for letter in "abc"
}


def load_regnet(path: str | Path, blueprint: Blueprint) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The backbone's arrays in a weights file, and what is missing from it: nothing.

    The file (see ``files.find_arrays``) holds a state dict under any key and with any prefix, with the names
    of torchvision (``trunk_output.block1.block1-0.f.a.0.weight``) or of pycls and Detectron2
    (``s1.b1.f.a.weight``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a weights file, or its names or shapes do not fit the model.
    """
    path = Path(path)
    ours = {
        name.removeprefix(_BACKBONE): shape
        for name, shape in shapes_of(blueprint).items()
        if name.startswith(_BACKBONE)
    }
    of_torchvision = {name: _layout(torchvision_name(name), shape) for name, shape in ours.items()}
    of_pycls = {name: _layout(regnet_name(name), shape) for name, shape in ours.items()}
    known = {layout.name for layouts in (of_torchvision, of_pycls) for layout in layouts.values()}
    arrays = find_arrays(path, known).arrays
    found = {
        name: array for name, array in arrays.items() if _PARTS.match(name) and not _UNUSED.fullmatch(name)
    }
    if not known & found.keys():
        names = f"has the names of {project}" if (project := other_project(arrays)) else "has other names"
        raise ValueError(
            f"{path}: {names}\na backbone must be {blueprint.config.backbone!r} with the names of "
            "torchvision, pycls or Detectron2"
        )
    layouts = of_torchvision if any(name.startswith("trunk_output.") for name in found) else of_pycls
    read = read_model(found, layouts, source=str(path))
    return {f"{_BACKBONE}{name}": jnp.asarray(array) for name, array in read.items()}, ()


def torchvision_name(name: str) -> str:
    """torchvision's name of an array of our ``RegNet``.

    "s1.0.a_norm.bias" is "trunk_output.block1.block1-0.f.a.1.bias".
    """
    module, leaf = name.rsplit(".", 1)
    if match := re.fullmatch(r"s(\d)\.(\d+)\.(.+)", module):
        stage, block, unit = match.groups()
        module = f"trunk_output.block{stage}.block{stage}-{block}.{_UNITS[unit]}"
    else:
        module = {"stem": "stem.0", "stem_norm": "stem.1"}[module]
    return f"{module}.{LEAVES[leaf]}"


def _layout(name: str, shape: Shape) -> Layout:
    return conv(name, shape) if len(shape) == 4 else plain(name, shape)
