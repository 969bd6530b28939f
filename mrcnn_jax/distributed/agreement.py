"""That the processes of a run were started alike: else they would train different models, or mix results."""

import hashlib
import time
from pathlib import Path

import numpy as np
from jax import Array

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.io import differences, from_dict
from mrcnn_jax.distributed import hosts
from mrcnn_jax.runs.description import is_run

_OF_A_HOST = {"data.root", "model.backbone_weights"}  # each may have its files elsewhere

_PATIENCE_S = 60  # with a network's file system, which remembers for a while what was not there


def check_settings(config: Config) -> None:
    """Raises ValueError, naming process and fields, unless all processes have the same config.

    Paths may differ; ``check_alike`` looks at what they lead to.
    """
    first, *others = [from_dict(values) for values in hosts.gather(to_dict(config))]
    lines = [
        f"\n  {name}: {there!r} in process {process}, {value!r} in process 0"
        for process, other in enumerate(others, start=1)
        for name, (there, value) in differences(other, first).items()
        if name not in _OF_A_HOST
    ]
    if lines:
        raise ValueError("the processes were started with different settings:" + "".join(lines))


def check_alike(what: str, *arrays: np.ndarray | Array) -> None:
    """Raises ValueError, naming processes, unless all have the same values in ``arrays``."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    first, *others = hosts.gather(digest.hexdigest())
    unlike = [str(process) for process, other in enumerate(others, start=1) if other != first]
    if unlike:
        raise ValueError(
            f"the {what} of process {', '.join(unlike)} are not those of process 0; all processes must be "
            "given the same"
        )


def check_seen(workdir: Path) -> None:
    """Raises ValueError unless this process sees, before long, that ``workdir`` is a run's directory."""
    end = time.monotonic() + _PATIENCE_S
    while not is_run(workdir):
        if time.monotonic() > end:
            raise ValueError(
                f"{workdir}: the run's directory must be one folder for all processes, but what process 0 "
                "has written there is not to be seen"
            )
        time.sleep(1)
