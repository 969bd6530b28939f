"""The workload ``--only=onnx`` of ``mrcnn-jax benchmark speed``: an ONNX file of a detector, in a runtime.

The file is ours, or torchvision's own export, which is written here on first use.
"""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

_THREADS = len(os.sched_getaffinity(0))


def infer(
    settings: dict[str, Any], arrays: dict[str, np.ndarray], build: Callable[..., Any]
) -> Callable[[], Any]:
    """Runs ``settings["runtime"]`` on the first image; ``build`` makes torchvision's model.

    With ``settings["pasted"]`` masks are pasted into the image: in torchvision's file by the file itself,
    with ours by ``export/runner``, which encodes them, too. Without, both return them in boxes' frames.
    """
    path, image = settings["file"], arrays["images"][0]
    if settings["ours"]:
        if settings["pasted"]:
            sys.path.append(settings["runner"])
            import runner  # type: ignore[import-not-found]  # the copy in the folder that was named

            model = runner.load_onnx(path, threads=_THREADS)
            return lambda: model([image])
        return _RUNTIMES[settings["runtime"]](path, image.astype(np.float32))
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255
    if not Path(path).exists():
        write(build(settings, arrays).eval(), pixels, path, pasted=settings["pasted"])
    return _RUNTIMES[settings["runtime"]](path, pixels)


def write(model: Any, pixels: np.ndarray, path: str, *, pasted: bool) -> None:
    """Writes torchvision's ``model`` by ``torch.onnx.export``; unless ``pasted``, with masks of 28 x 28."""
    if not pasted:
        model.transform.postprocess = lambda found, image_shapes, original_sizes: found
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about what it cannot follow
        torch.onnx.export(model, ([torch.from_numpy(pixels)],), path, opset_version=17, dynamo=False)


def _onnxruntime(path: str, pixels: np.ndarray) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.log_severity_level = 3  # errors: torchvision's file warns once for each pasted mask
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: pixels}
    return lambda: session.run(None, inputs)


def _openvino(path: str, pixels: np.ndarray, *, precision: str) -> Callable[[], Any]:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": _THREADS,
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
    return lambda: request.infer([pixels])


def _openvino_float32(path: str, pixels: np.ndarray) -> Callable[[], Any]:
    return _openvino(path, pixels, precision="f32")


def _openvino_bfloat16(path: str, pixels: np.ndarray) -> Callable[[], Any]:
    return _openvino(path, pixels, precision="bf16")


_RUNTIMES: dict[str, Callable[[str, np.ndarray], Callable[[], Any]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino_float32,
    "openvino_bf16": _openvino_bfloat16,
}
