"""Warnings of more compilations of a program than one for each canvas."""

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


class Compilations:
    """Those of one jitted function, which compiles for every new combination of its inputs' shapes and types.

    Args:
        program: what the function is, for the warnings.
        canvases: those of its images; one compilation for each is expected.
    """

    def __init__(self, program: str, canvases: Sequence[Canvas]) -> None:
        self._program = program
        self._canvases = tuple(canvases)
        self._compiled: dict[Canvas, list[dict[str, str]]] = {}

    def expect(self, images: np.ndarray | Array, inputs: Any) -> bool:
        """Whether the function is now compiled; warns, with what is new, if not for a new canvas.

        Args:
            images: [B H W 3].
            inputs: whatever the function is called with and may differ, with the images.
        """
        height, width = images.shape[1:3]
        described = {
            jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype} {list(leaf.shape)}"
            for path, leaf in jax.tree.leaves_with_path(inputs)
        }
        before = self._compiled.setdefault((height, width), [])
        if described in before:
            return False
        reason = ""
        if before:
            names = sorted(before[-1].keys() | described.keys())
            reason = "; ".join(
                f"{name}: {described.get(name, 'none')}, before {before[-1].get(name, 'none')}"
                for name in names
                if described.get(name) != before[-1].get(name)
            )
        elif (height, width) not in self._canvases:
            planned = ", ".join(f"{height}x{width}" for height, width in self._canvases)
            reason = f"images are {height}x{width}, which is none of data.canvases ({planned})"
        before.append(described)
        if reason:
            warnings.warn(f"{self._program} is compiled again, which takes its time: {reason}", stacklevel=3)
        return True
