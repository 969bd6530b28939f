"""The detector of a worker, described so that it can be sent there."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mrcnn_jax.config import Config
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.made_with import made_with
from mrcnn_jax.many_images.host import compile_once, take_cores
from mrcnn_jax.runs.checkpoint import step_of_weights
from mrcnn_jax.runs.description import is_model_file


@dataclass(frozen=True)
class Model:
    """A trained run or a model file, and how a worker runs it.

    Args:
        path: under which the worker's machine sees the run or the file.
        step: of the checkpoint, or of the model file.
        config: as of ``inference.detector.load``.
        batch_size: images per batch.
        cores: of the CPU, that a worker may use; 0 for all.
        made_with: what the results depend on; workers with the same values have the same programs.
    """

    path: Path
    step: int
    config: Config
    batch_size: int
    cores: int
    made_with: Mapping[str, Any]

    def load(self) -> Detector:
        """The detector, with its programs compiled for every canvas, by one worker of a machine.

        Changes settings of this process (``runtime.setup``). Raises as ``inference.detector.load``.
        """
        from mrcnn_jax.inference.canvases import one_size_per_canvas
        from mrcnn_jax.inference.detector import load
        from mrcnn_jax.runtime.setup import setup

        cores = take_cores(self.cores) if self.cores else []
        setup()
        import jax
        import numpy as np

        detector = load(self.path, step=self.step, batch_size=self.batch_size, config=self.config)

        def compile_all() -> None:
            pixels = detector.pixels
            for height, width in one_size_per_canvas(detector.config).values():
                detector(np.zeros((height, width, pixels.channels), pixels.dtype))

        devices = [device.device_kind for device in jax.local_devices()]
        described = [dict(self.made_with), self.batch_size, devices, len(cores), jax.__version__]
        name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
        compile_once(name, jax.config.values["jax_compilation_cache_dir"], compile_all)
        return detector


def describe_model(
    workdir: Path, step: int | Literal["best"] | None, config: Config, *, batch_size: int, cores: int
) -> Model:
    """The model with the weights of a step, as of ``inference.detector.load``, which are not read.

    Raises its errors for a step that is not there.
    """
    if is_model_file(workdir):
        with zipfile.ZipFile(workdir) as archive:
            own = json.loads(archive.read("manifest.json"))["step"]
        if step not in (None, own):
            raise ValueError(f"{workdir} has the weights of step {own}, not of step {step}")
        step = own
    else:
        step = step_of_weights(workdir, step)
    assert isinstance(step, int)
    workdir = workdir.resolve()
    return Model(workdir, step, config, batch_size, cores, made_with(workdir, step, config))
