"""Checks that all processes of a run were started with the same settings, data and weights."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax import Array

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.io import differences, from_dict
from mrcnn_jax.distributed import hosts
from mrcnn_jax.runs.description import is_run

_HOST_PATHS = {"data.root", "model.backbone_weights"}  # paths that may differ between hosts

_TIMEOUT_S = 60  # network file systems cache for a while that a file does not exist


def check_same_config(config: Config) -> None:
    """Raises ValueError, naming processes and fields, unless all processes have the same config.

    Paths that depend on the host may differ; ``check_same_arrays`` compares the data behind them.
    """
    first, *others = [from_dict(values) for values in hosts.all_gather(to_dict(config))]
    lines = [
        f"\n  {name}: {there!r} in process {process}, {value!r} in process 0"
        for process, other in enumerate(others, start=1)
        for name, (there, value) in differences(other, first).items()
        if name not in _HOST_PATHS
    ]
    if lines:
        raise ValueError("the processes were started with different settings:" + "".join(lines))


def check_same_arrays(what: str, *arrays: np.ndarray | Array) -> None:
    """Raises ValueError, naming processes, unless all have the same values in ``arrays``.

    ``what`` says in the message what the arrays are.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    first, *others = hosts.all_gather(digest.hexdigest())
    different = [str(process) for process, other in enumerate(others, start=1) if other != first]
    if different:
        raise ValueError(
            f"the {what} of process {', '.join(different)} differ from those of process 0; all processes "
            "must have the same"
        )


def check_shared_workdir(workdir: Path) -> None:
    """Raises ValueError unless the run that process 0 made in ``workdir`` is visible within a minute."""
    if not becomes_true(lambda: is_run(workdir)):
        raise ValueError(
            f"{workdir}: the run's directory must be shared by all processes, but the files of "
            "process 0 are not visible to this process"
        )


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether a condition on other processes' files holds within a minute."""
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True
