"""Runs the programs of a model file, which ``mrcnn-jax export`` wrote, in place of a run's model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import differences
from mrcnn_jax.export import runner
from mrcnn_jax.runtime.compilations import CompilationTracker
from mrcnn_jax.types import Detections

# Settings that decide what is detected, but are applied after the program.
_OUTSIDE = ("data.keypoint_offset", "test.mask_threshold", "test.mask_paste")
_INSIDE = ("model.dtype", "data.canvases", "test.spatial_devices")  # others that the program has


def load_programs(
    path: Path, config: Config, *, own: Config, step: int | Literal["best"] | None, batch_size: int
) -> tuple[Callable[[np.ndarray, np.ndarray], Detections], Config, int]:
    """The file's programs for batches, the config with the file's canvases, and the step of its weights.

    The first is a ``PredictFn`` (``inference.detector``). ``own`` is the config in the file. Raises
    ValueError, naming the file and the rule, if ``config`` changes what is fixed in the programs, if the file
    has another step, or no program for batches of this size, and as ``runner.load``.
    """
    _check_fixed(path, config, own)
    model = runner.load(str(path))
    if step not in (None, model.manifest["step"]):
        raise ValueError(f"{path} has the weights of step {model.manifest['step']}, not of step {step}")
    for (height, width), programs in model.programs.items():
        if batch_size not in programs:
            raise ValueError(
                f"{path} has programs for batches of {', '.join(map(str, programs))} images on canvas "
                f"{height}x{width}, not of {batch_size}: choose another --batch_size, or export the run "
                f"again with --batch_sizes={batch_size}"
            )
    sides = model.manifest["short_side"], model.manifest["long_side"]
    canvases: tuple[Any, ...] = tuple(model.programs)
    data = replace(config.data, test_short_side=sides[0], long_side=sides[1], canvases=canvases)
    test = replace(config.test, scales=(), scales_long_side=0, spatial_devices=1)
    compilations = CompilationTracker("inference", canvases)

    def run(images: np.ndarray, image_sizes: np.ndarray) -> Detections:
        compiles = compilations.record(images, {"images": images, "image_sizes": image_sizes})
        program = model.programs[images.shape[1:3]][batch_size]
        with compilations.announced(images, compiles):
            return Detections(**program(model.weights, images, image_sizes))

    return run, replace(config, data=data, test=test), model.manifest["step"]


def _check_fixed(path: Path, config: Config, own: Config) -> None:
    fixed = {
        name: values
        for name, values in differences(config, own).items()
        if name not in _OUTSIDE and (SETTINGS[name].decides != "neither" or name in _INSIDE)
    }
    if fixed:
        lines = (f"\n  {name}: {here!r} here, {there!r} there" for name, (here, there) in fixed.items())
        raise ValueError(
            f"{path} has programs in which these settings are fixed:{''.join(lines)}\nto change them, export "
            "the run again with the same flags"
        )
