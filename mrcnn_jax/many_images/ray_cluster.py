"""Runs workers as a pool of actors of Ray Data, on this machine or on a cluster.

Each block of the dataset is a shard: an actor's task. Ray starts actors anew that died, and gives them their
task again; what a task has written does not pass through Ray, so that its only results are a few numbers.
"""

import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from mrcnn_jax.many_images.host import cache_folder
from mrcnn_jax.many_images.job import Job, Shard
from mrcnn_jax.many_images.model import Model
from mrcnn_jax.many_images.part_files import appearing
from mrcnn_jax.many_images.worker import Finder, Worker

# What workers take from the environment of the command, on whatever machine they run.
_PASSED_ON = ("JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", "XLA_FLAGS")
_INIT_DEATHS = 3  # actors in a row that may die while they load the model


@dataclass(frozen=True)
class Resources:
    """How many actors there are, and what Ray reserves for each."""

    actors: int
    cpus: int
    gpus: float


def connect(address: str | None, resources: Resources) -> None:
    """Joins the cluster at ``address``, or at the environment's RAY_ADDRESS, or starts one on this machine.

    Raises ValueError if a cluster on this machine is too small, and ConnectionError if there is none at the
    address. Warns if a cluster elsewhere is too small at present: it may grow.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 would starve actors on a machine with other work
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    else:
        options |= {"address": address}
    with warnings.catch_warnings():
        # Of JAX, which fears for its threads; the fork is followed by an exec at once.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        ray.init(**options)
    wanted = {"CPU": resources.actors * resources.cpus, "GPU": resources.actors * resources.gpus}
    there = ray.cluster_resources()
    if missing := [name for name, count in wanted.items() if count > there.get(name, 0)]:
        lines = ", ".join(f"{wanted[name]:g} {name}s, it has {there.get(name, 0):g}" for name in missing)
        problem = f"--actors={resources.actors} need {lines}"
        if address is None:
            raise ValueError(f"this machine is too small: {problem}")
        print(f"warning: the cluster is too small now: {problem}", file=sys.stderr, flush=True)


def run_shards(
    job: Job,
    shards: Sequence[Shard],
    load: Callable[[], Finder],
    resources: Resources,
    *,
    worker: type[Any] = Worker,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Works on ``shards``; yields what ``Worker.process`` returns for each when it is done, in any order.

    ``options`` are those of ``worker``, whose first arguments are ``job`` and ``load``. Ends the actors if it
    is not exhausted. Raises ChildProcessError with the reason if actors cannot be made or a worker fails for
    another reason than an image.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised, too
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    dataset = ray.data.from_items(
        [shard._asdict() for shard in shards], override_num_blocks=len(shards)
    ).map_batches(
        worker,
        fn_constructor_args=(job, load),
        fn_constructor_kwargs=options,
        batch_size=1,
        # A task at a time, so that no shard waits for an actor while another has none.
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=resources.actors,
            initial_size=resources.actors,
            max_tasks_in_flight_per_actor=1,
        ),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        runtime_env={"env_vars": variables},
    )
    try:
        yield from dataset.iter_rows()
    except RayError as error:
        raise ChildProcessError(f"a worker failed: {_reason(error)}") from error


def shipped(model: Model) -> Callable[[], Finder]:
    """A function that loads the model on any machine: one file is sent there, a run must be visible there."""
    if not model.path.is_file():
        return model.load
    data = model.path.read_bytes()
    content = ray.put(np.frombuffer(data, np.uint8))  # which processes of a machine share
    return partial(_load_sent, content, hashlib.sha256(data).hexdigest(), model)


def _load_sent(content: Any, digest: str, model: Model) -> Finder:
    """The model, from a file that is written once on each machine."""
    path = cache_folder("sent") / f"{digest}.mrcnn"
    if not path.exists():
        with appearing(path) as unfinished:
            unfinished.write_bytes(ray.get(content))
    return replace(model, path=path).load()


def _reason(error: BaseException) -> str:
    """The error that a worker raised, on one line, without Ray's tracebacks."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
