"""Mask R-CNN in JAX: detects objects in images, with boxes, masks and keypoints.

import mrcnn_jax

detector = mrcnn_jax.load("runs/shapes")
result = detector("photo.jpg")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrcnn_jax.config import Config
    from mrcnn_jax.evaluation.coco_eval import evaluate
    from mrcnn_jax.inference.detector import Detector, load
    from mrcnn_jax.inference.results import Result
    from mrcnn_jax.inference.video import predict_video
    from mrcnn_jax.runs.categories import Categories
    from mrcnn_jax.runtime.setup import setup
    from mrcnn_jax.training.loop import train

__all__ = [
    "Categories",
    "Config",
    "Detector",
    "Result",
    "evaluate",
    "load",
    "predict_video",
    "setup",
    "train",
]
__version__ = "0.1.0"

_MODULES = {
    "Categories": "runs.categories",
    "Config": "config",
    "Detector": "inference.detector",
    "Result": "inference.results",
    "evaluate": "evaluation.coco_eval",
    "load": "inference.detector",
    "predict_video": "inference.video",
    "setup": "runtime.setup",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    """A public name, imported on first use, as importing JAX takes seconds."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
