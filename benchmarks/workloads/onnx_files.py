"""Inference through ONNX: our file and torchvision's own export, in ONNX Runtime and in OpenVINO.

Both run in the interpreter of ``--peer``, which has these runtimes: ``peers/onnx_runtimes.py``.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.benchmarks.timing import Workload
from mrcnn_jax.benchmarks.workloads.models import Model, make_categories
from mrcnn_jax.export import runner
from mrcnn_jax.export.model_file import Exportable
from mrcnn_jax.export.onnx_file import export_onnx
from mrcnn_jax.inference.views import scales_of

_RUNTIMES = (("onnxruntime", True), ("onnxruntime", False), ("openvino", False), ("openvino_bf16", False))


def infer(model: Model, folder: Path) -> Iterator[tuple[Workload, Workload]]:
    """Our file and torchvision's in each runtime, with one image; the files are written into ``folder``.

    In ONNX Runtime they are run with their masks pasted, too. Raises ValueError if torchvision has no such
    model.
    """
    if not model.settings():
        raise ValueError(
            "--only=onnx compares with torchvision, which has no such model: choose another --config"
        )
    folded = model.folded()
    arrays = {name: np.asarray(array) for name, array in folded.weights.items()}
    scale = scales_of(model.config)[0]
    ours = Exportable(model.config, make_categories(model.config.model), 0, folded.blueprint, arrays, scale)
    export_onnx(ours, folder / "ours.onnx")
    images = model.images(1)
    for runtime, pasted in _RUNTIMES:
        settings: dict[str, Any] = {**model.settings(), "runtime": runtime, "pasted": pasted}
        name = f"onnx: {runtime}{', pasted' if pasted else ''}"
        file = folder / f"torchvision{'_pasted' if pasted else ''}.onnx"
        theirs = Workload(
            name,
            _nothing,
            settings | {"ours": False, "file": str(file)},
            lambda: model.arrays() | {"images": images},
        )
        own = {
            "ours": True,
            "file": str(folder / "ours.onnx"),
            "runner": str(Path(runner.__file__).parents[1]),
        }
        yield replace(theirs, settings=settings | own, arrays=lambda: {"images": images}), theirs


def _nothing() -> None:
    """Neither runs in this process."""
