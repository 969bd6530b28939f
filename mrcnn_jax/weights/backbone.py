"""An ImageNet ResNet into the backbone, from torchvision's key names."""

import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.checkpoint import check_same
from mrcnn_jax.models.resnet import is_frozen
from mrcnn_jax.models.variables import Blueprint

STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def load_backbone(path: str | Path, blueprint: Blueprint) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The backbone's arrays in an ``.npz`` file, and the stages that the file has not.

    The file holds a ResNet's state dict as torchvision names it (``layer1.0.conv1.weight``, OIHW;
    ``layer1.0.bn1.running_mean``); ``fc`` and ``num_batches_tracked`` are passed over. A stage that is
    missing altogether is left to its random initialisation. No pickled object is ever read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no ``.npz`` archive of arrays, it has nothing of a backbone or lacks a stage
            that is not trained, or its names or shapes do not fit the model; every mismatch is listed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (model.backbone_weights)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path}: not an .npz archive of plain arrays ({error})") from error

    arrays = {}
    for key, value in found.items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            name, array = _to_ours(key, value)
            arrays[name] = array

    present = {name.split(".")[1] for name in arrays}
    absent = tuple(stage for stage in STAGES if stage not in present)
    frozen = [stage for stage in absent if is_frozen((stage,), blueprint.config.backbone_frozen_stages)]
    if not present or frozen:
        lacks = ", ".join(frozen or absent)
        raise ValueError(f"{path}: has no {lacks}, which would stay random; see model.backbone_frozen_stages")
    wanted = {
        name: shape
        for name, shape in blueprint.shapes().items()
        if name.startswith("backbone.") and name.split(".")[1] not in absent
    }
    check_same(wanted, arrays, source=str(path))
    return {name: jnp.asarray(array) for name, array in arrays.items()}, absent


def _to_ours(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    prefix, _, leaf = key.rpartition(".")
    if leaf == "weight" and value.ndim == 4:
        return f"backbone.{prefix}.kernel", value.transpose(2, 3, 1, 0).astype(np.float32)  # OIHW to HWIO
    return f"backbone.{prefix}.{_LEAVES.get(leaf, leaf)}", value.astype(np.float32)
