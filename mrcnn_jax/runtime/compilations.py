"""Warns when a jitted program compiles more than once per canvas."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

Canvas = tuple[int, int]  # height, width


def quick_compilation() -> dict[str, int]:
    """Compiler options for a program that runs once: a CPU compiles it quickly rather than well."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


class CompilationTracker:
    """Tracks how often one jitted function is compiled: once per combination of input shapes and dtypes.

    Args:
        program: Name of the function in warnings.
        canvases: The canvases of its images; one compilation is expected for each.
    """

    def __init__(self, program: str, canvases: Sequence[Canvas]) -> None:
        self._program = program
        self._canvases = tuple(canvases)
        self._compiled: dict[Canvas, list[dict[str, str]]] = {}

    def record(self, images: np.ndarray | Array, inputs: Any) -> bool:
        """Whether this call compiles the function; warns, giving the reason, if that was not expected.

        Args:
            images: [B H W 3].
            inputs: All arguments of the call that may change between calls, the images included.
        """
        height, width = images.shape[1:3]
        described = {
            jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype} {list(leaf.shape)}"
            for path, leaf in jax.tree.leaves_with_path(inputs)
        }
        compiled = self._compiled.setdefault((height, width), [])
        if described in compiled:
            return False
        reason = ""
        if compiled:
            names = sorted(compiled[-1].keys() | described.keys())
            reason = "; ".join(
                f"{name}: {described.get(name, 'none')}, before {compiled[-1].get(name, 'none')}"
                for name in names
                if described.get(name) != compiled[-1].get(name)
            )
        elif (height, width) not in self._canvases:
            planned = ", ".join(f"{height}x{width}" for height, width in self._canvases)
            reason = f"images are {height}x{width}, which is not in data.canvases ({planned})"
        compiled.append(described)
        if reason:
            warnings.warn(f"{self._program} is compiled again, which takes time: {reason}", stacklevel=3)
        return True
