"""Writes a run as an ONNX file, which ``runner`` runs in ONNX Runtime, and other runtimes take too."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import onnx

from mrcnn_jax.config import ModelConfig, to_dict
from mrcnn_jax.export.model_file import Exportable, check_new
from mrcnn_jax.export.onnx_graph.detector import detector_graph
from mrcnn_jax.export.runner import VERSION
from mrcnn_jax.json_files import replacing

_LARGEST = 2**31 - 1  # bytes of a protobuf message


def check_onnx(config: ModelConfig) -> None:
    """Raises ValueError, naming each setting and the reason, if the model has no form in ONNX here."""
    backbone = config.backbone
    problems = []
    if backbone != "resnet" and not backbone.startswith("regnet"):
        problems.append(f"model.backbone is {backbone!r}: only ResNets and RegNets are written")
    if config.backbone_deformable:
        problems.append(
            f"model.backbone_deformable is {config.backbone_deformable!r}: these convolutions are not written"
        )
    if config.non_local:
        problems.append(f"model.non_local is {config.non_local!r}: the block is not written")
    if config.roi_pooling != "align":
        problems.append(
            f"model.roi_pooling is {config.roi_pooling!r}: of these, ONNX has only the mean of RoIAlign"
        )
    if config.mask and config.mask_fcs:
        problems.append(f"model.mask_fcs is {config.mask_fcs}: only the convolutional mask head is written")
    if config.mask and config.mask_loss != "sigmoid":
        problems.append(f"model.mask_loss is {config.mask_loss!r}: only masks by a sigmoid are written")
    for name in ("fpn_norm", "box_norm", "mask_norm"):
        if getattr(config, name) == "layer":
            problems.append(f"model.{name} is 'layer': only batch and group norms are written")
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(f"the model cannot be exported as ONNX:{lines}\nexport it without --format=onnx")


def export_onnx(model: Exportable, output: str | Path) -> None:
    """Writes ``model`` to the file ``output``; see ``onnx_graph.detector`` for its inputs and outputs.

    It computes in float32, whatever the config's dtype, and takes one image of any size. Its metadata are
    JSON texts: ``manifest``, ``config`` and ``categories``, as in the files of ``model_file.py``. Raises
    ValueError like ``check_onnx`` and for a model of 2 GB or more, FileExistsError if ``output`` exists, and
    OSError.
    """
    output = Path(output)
    check_new(output)
    check_onnx(model.config.model)
    manifest = {
        "version": VERSION,
        "step": model.step,
        "short_side": model.scale.short_side,
        "long_side": model.scale.long_side,
    }
    metadata = {
        "manifest": _json(manifest),
        "config": _json(to_dict(model.config)),
        "categories": _json(dataclasses.asdict(model.categories)),
    }
    size = sum(array.nbytes for array in model.arrays.values())
    if size > _LARGEST:
        raise ValueError(f"the weights have {size} bytes, and an ONNX file may have at most {_LARGEST}")
    network = model.folded.build({name: jnp.asarray(array) for name, array in model.arrays.items()})
    written = detector_graph(network, model.config, metadata)
    onnx.checker.check_model(written, full_check=True)
    content = written.SerializeToString(deterministic=True)
    with replacing(output) as unfinished:
        unfinished.write_bytes(content)
        check_new(output)  # another process may have written it in the meantime


def _json(values: Any) -> str:
    return json.dumps(values, allow_nan=False)
