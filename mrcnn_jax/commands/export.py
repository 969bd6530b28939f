"""Writes a trained run as one file that runs without this package, on CPUs, NVIDIA GPUs and TPUs.

    mrcnn-jax export --workdir=runs/shapes --output=shapes.mrcnn
    mrcnn-jax export --workdir=torchvision/mask_rcnn_r50_fpn --output=model.mrcnn --canvas=800x1344 \\
        --batch_sizes=1,4

The file has a program (StableHLO) for each platform, canvas and batch size, the weights once, the settings,
the categories, and the code that runs it anywhere with jax, NumPy and flatbuffers:

    python shapes.mrcnn photo.npy

mrcnn_jax.load, mrcnn-jax predict and mrcnn-jax evaluate take the file in place of a run.

    mrcnn-jax export --workdir=runs/shapes --output=saved/1 --format=saved_model

writes a TensorFlow SavedModel instead, for CPUs, and

    mrcnn-jax export --workdir=runs/shapes --output=shapes.onnx --format=onnx

an ONNX file, which takes one image of any size (pip install onnx). Existing files are never overwritten. See
docs/deployment.md.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import run_config

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the trained run, or a published model's name (docs/zoo.md)", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "file to write, such as model.mrcnn; with --format=saved_model a folder", required=True
)
_FORMAT: Any = flags.DEFINE_enum("format", "mrcnn", ["mrcnn", "saved_model", "onnx"], "what to write")
_STEP = command_line.define_step()
_CANVAS = flags.DEFINE_list(
    "canvas",
    [],
    "canvases of the run to export, as HEIGHTxWIDTH,...; default: all. Each takes a program, and images are "
    "shrunk to those that there are",
)
_batch_sizes = command_line.define_batch_sizes(
    "images per batch, such as 1,4: programs are compiled for a fixed number"
)
_PLATFORMS = flags.DEFINE_list(
    "platforms", ["cpu", "cuda", "tpu"], "platforms to export for; a SavedModel is for cpu alone"
)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    canvases = [_canvas(text) for text in _CANVAS.value]
    batch_sizes = _batch_sizes()
    if _FORMAT.value == "onnx":
        _check_for_onnx()
    if _FORMAT.value == "saved_model" and flags.FLAGS["platforms"].present and _PLATFORMS.value != ["cpu"]:
        raise ValueError("--platforms is not for --format=saved_model, which is for CPUs")
    config = _override(run_config(_WORKDIR.value))
    setup()
    from mrcnn_jax.export.model_file import (
        check_canvases,
        check_exportable,
        check_new,
        check_platforms,
        export_model,
        load_exportable,
    )
    from mrcnn_jax.weights.zoo import workdir_of

    check_new(output)  # before a download
    check_exportable(config)
    check_platforms(_PLATFORMS.value)
    check_canvases(config, canvases)
    if _FORMAT.value == "onnx":
        from mrcnn_jax.export.onnx_file import check_onnx

        check_onnx(config.model)
    model = load_exportable(workdir_of(_WORKDIR.value), config, step=_STEP.value, canvases=canvases)
    options: dict[str, Any] = {
        "batch_sizes": batch_sizes,
        "announce": lambda line: print(line, flush=True),
    }
    if _FORMAT.value == "mrcnn":
        export_model(model, output, platforms=_PLATFORMS.value, **options)
    elif _FORMAT.value == "onnx":
        from mrcnn_jax.export.onnx_file import export_onnx

        export_onnx(model, output)
    else:
        from mrcnn_jax.export.saved_model import export_saved_model

        export_saved_model(model, output, **options)
    print(f"{output}: step {model.step} of {_WORKDIR.value}")


def _check_for_onnx() -> None:
    """Raises ValueError for flags that an ONNX file has no use for, and if the library is missing."""
    if find_spec("onnx") is None:
        raise ValueError(
            "--format=onnx needs the library onnx: pip install 'mrcnn_jax[onnx]', or in a clone "
            "pip install -e '.[onnx]'"
        )
    for name in ("canvas", "batch_sizes", "platforms"):
        if flags.FLAGS[name].present:
            raise ValueError(
                f"--{name} is not for --format=onnx: the file takes one image of any size, on CPUs"
            )


def _canvas(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(f"--canvas={text}: must be HEIGHTxWIDTH, such as 800x1344")
    return int(match[1]), int(match[2])
