"""Loads a pre-trained vision transformer with the names of MAE (arXiv 2111.06377), which are timm's, too."""

import re
from pathlib import Path

import jax.numpy as jnp
from jax import Array

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.detectron2 import vit_layout
from mrcnn_jax.weights.files import find_arrays
from mrcnn_jax.weights.layouts import read_model, shapes_of

# Others are of the class token, the last norm, classifiers and decoders.
_PARTS = re.compile(r"pos_embed|patch_embed\.|blocks\.")

_BACKBONE = "backbone."


def load_vit(path: str | Path, blueprint: Blueprint) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The backbone's arrays in a weights file, and what is missing from it: relative positions, or nothing.

    Relative positions, which only detectors have, stay 0 without them. The file (see ``files.find_arrays``)
    holds a state dict with MAE's names (``blocks.0.attn.qkv.weight``), under any key and with any prefix.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a weights file, or its names or shapes do not fit the model.
    """
    path = Path(path)
    layouts = {
        name: vit_layout(name.removeprefix(_BACKBONE), shape)
        for name, shape in shapes_of(blueprint).items()
        if name.startswith(_BACKBONE)
    }
    arrays = find_arrays(path, {layout.name for layout in layouts.values()}).arrays
    found = {name: array for name, array in arrays.items() if _PARTS.match(name)}
    absent: tuple[str, ...] = ()
    if not any(".rel_pos_" in name for name in found):
        absent = ("relative positions",)
        layouts = {name: layout for name, layout in layouts.items() if ".rel_pos_" not in name}
    try:
        ours = read_model(found, layouts, source=str(path))
    except ValueError as error:
        kernel = found.get("patch_embed.proj.weight")
        if kernel is not None and kernel.shape[-1] == 14:
            raise ValueError(
                f"{path}: has patches of 14 x 14 pixels; must be 16 x 16, as in Detectron2's "
                "mae_pretrain_vit_huge_p14to16.pth"
            ) from error
        raise
    return {name: jnp.asarray(array) for name, array in ours.items()}, absent
