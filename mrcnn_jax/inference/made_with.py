"""What results depend on, by the names of flags: an interrupted run goes on only with the same."""

from pathlib import Path
from typing import Any

from mrcnn_jax.config import Config
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import flatten
from mrcnn_jax.runs.checkpoint import time_of_weights


def made_with(workdir: Path, step: int, config: Config) -> dict[str, Any]:
    """JSON-serialisable values that say with which weights and settings a detector finds objects.

    ``workdir`` is a run or a model file, ``step`` that of its weights. Batches of another size give the same
    results.
    """
    return {
        "--workdir": str(workdir.resolve()),
        "--step": step,
        "time of the weights": time_of_weights(workdir, step),
    } | {
        f"--config.{name}": value
        for name, value in flatten(config).items()
        if SETTINGS[name].decides != "neither" or name == "model.dtype"
    }
