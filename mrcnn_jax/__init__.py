"""Mask R-CNN in JAX: detects objects in images, with boxes, masks and keypoints.

import mrcnn_jax

detector = mrcnn_jax.load("runs/shapes")
result = detector("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrcnn_jax.inference.detector import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load``, imported on first use: importing JAX takes seconds, which ``--help`` need not wait for."""
    if name == "load":
        from mrcnn_jax.inference.detector import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
