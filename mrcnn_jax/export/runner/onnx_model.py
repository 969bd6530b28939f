"""Runs an .onnx file by ONNX Runtime, or by another runtime that the caller brings (docs/onnx.md)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .detector import Detector
from .resizing import resize


def load_onnx(path: str, *, threads: int = 0) -> "OnnxModel":
    """The model in an .onnx file, for ONNX Runtime on a CPU with so many ``threads``; 0: one for each core.

    Raises OSError if the file cannot be opened, and ValueError, naming it, if ``mrcnn-jax export`` did not
    write it or ONNX Runtime refuses it.
    """
    import onnxruntime

    open(path, "rb").close()  # an error of the system, if there is no such file
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(image: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {"image": image}), strict=True))

        return OnnxModel(session.get_modelmeta().custom_metadata_map, run)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # ONNX Runtime has many of its own
        raise ValueError(f"{path}: is damaged or not from mrcnn-jax export: {error!r}") from error


class OnnxModel(Detector):
    """Called as ``Model``; its ``texts`` are the metadata of an .onnx file.

    ``run`` takes a resized image, float32 [H W C], and returns the file's outputs by name.
    """

    def __init__(self, texts: dict[str, str], run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> None:
        super().__init__(texts)
        self.channels, self.run = len(self.config["model"]["pixel_mean"]), run

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        self.check(images)
        found = []
        for image in images:
            shape = self.resized_shape(image)
            outputs = self.run(resize(image, shape, self.config["data"]["resize"]).astype(np.float32))
            valid = np.ones(len(outputs["scores"]), bool)
            found.append(self.finish({**outputs, "valid": valid}, shape, image.shape[:2]))
        return found
