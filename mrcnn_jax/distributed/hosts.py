"""Connects several processes, one or more per host, into one run, and exchanges values between them.

Collective: every process must call these functions, or the others hang. With a single process they do
nothing.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mrcnn_jax.distributed import stopping

_HEARTBEAT_S = 40  # without a heartbeat from a process before the others are terminated
_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # variables with the number of processes that MPI started
_POD = "JOB_COMPLETION_INDEX"  # the number of a pod in a Kubernetes Job with "completionMode: Indexed"
_T = TypeVar("_T")


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    handle_sigterm: bool,
) -> None:
    """Joins this process to a run of several; must be called before JAX computes anything.

    Without arguments, JAX detects the processes from SLURM, Open MPI, Kubernetes or the TPU; if none of these
    started it, the process runs alone.

    Args:
        coordinator: ``host:port`` at which process 0 listens and the others reach it.
        num_processes: The number of processes. As the only argument, 1 makes the process run alone.
        process_id: The index of this process, from 0.
        handle_sigterm: Whether SIGTERM is reported by ``should_stop`` instead of ending the process. So is
            Ctrl-C inside ``stopping.catching_interrupts``.

    Raises:
        ValueError: if some arguments are missing or malformed, or MPI or Kubernetes started several processes
            in a way that JAX does not recognise.
    """
    given = (coordinator, num_processes, process_id)
    if given != (None, 1, None):
        _check_given(*given)
        jax.config.update("jax_enable_preemption_service", handle_sigterm)
        try:
            jax.distributed.initialize(
                *given,
                # In SLURM and MPI, JAX would otherwise give a process one of its host's devices.
                cluster_detection_method="deactivate" if coordinator is not None else None,
                heartbeat_timeout_seconds=_HEARTBEAT_S,
            )
        except ValueError as error:
            if given != (None, None, None) or "coordinator_address" not in str(error):
                raise
            _check_launcher()
    if not is_single_process():
        connect(jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,)))
    if not handle_sigterm:
        return
    if is_single_process():
        stopping.note(signal.SIGTERM)
    else:  # JAX handles SIGTERM, and tells all processes of it
        stopping.note(forward=partial(os.kill, os.getpid(), signal.SIGTERM))


def _check_given(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    given = (coordinator, num_processes, process_id)
    if None in given and given != (None, None, None):
        raise ValueError(
            "--coordinator, --num_processes and --process_id must be given together, or none of them if JAX "
            "can detect them"
        )
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator}: must be host:port, such as {coordinator}:9876")


def _check_launcher() -> None:
    for name in _LAUNCHERS:
        if os.environ.get(name, "1") != "1":
            raise ValueError(
                f"{name} is {os.environ[name]}, but JAX does not recognise the launcher of these processes; "
                "give --coordinator, --num_processes and --process_id, see docs/multi_host.md"
            )
    index = os.environ.get(_POD, "0")
    if index != "0":
        raise ValueError(
            f"{_POD} is {index}: this is not the only pod of its Kubernetes Job, but JAX did not find the "
            "others; install jax[k8s], or give --coordinator, --num_processes and --process_id, see "
            "docs/multi_host.md. If the pods are to work independently, give --num_processes=1"
        )


def connect(mesh: Mesh) -> None:
    """Makes the devices along each axis of ``mesh``, of all processes, communicate while these are in step.

    The connections stay open. If they were opened later, gloo would give up after 30 seconds, while one host
    may take minutes longer than another to prepare and to compile.
    """
    if is_single_process():
        return
    all_gather(None)
    axes = mesh.axis_names
    spread = NamedSharding(mesh, P(axes))
    ones = np.ones(len(mesh.local_devices), np.float32)
    array = jax.make_array_from_process_local_data(spread, ones, (mesh.size,))
    add_up = jax.shard_map(
        lambda x: [jax.lax.psum(x, axis) for axis in axes], mesh=mesh, in_specs=P(axes), out_specs=P(axes)
    )
    jax.block_until_ready(jax.jit(add_up)(array))


def is_single_process() -> bool:
    """Whether the run has no other process."""
    return jax.process_count() == 1


def is_main_process() -> bool:
    """Whether this is process 0, which writes and reports for all."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line in the first process, at once."""
    if is_main_process():
        print(line, flush=True)


def all_gather(value: _T) -> list[_T]:
    """The values of all processes, in process order; they must be JSON-serialisable."""
    if is_single_process():
        return [value]
    message = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(message)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(message)] = message
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


@contextmanager
def fail_together() -> Iterator[None]:
    """Waits at the end of the block for all processes, and fails in all of them if it fails in one.

    Raises this process's own error, or a ValueError that says which other process failed and why.
    """
    try:
        yield
    except Exception as error:
        with suppress(jax.errors.JaxRuntimeError):  # even if the others cannot be reached, raise the error
            all_gather(str(error))
        raise
    for process, message in enumerate(all_gather(None)):
        if message is not None:
            raise ValueError(f"process {process}: {message}")


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turns JAX's error about a lost process into a ConnectionError that says what to do."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search("gloo|nccl", str(error), re.IGNORECASE):
            raise
        raise ConnectionError(
            f"process {jax.process_index()} cannot reach another process, which has died or given up; the "
            "output of that process says why. To continue from the last checkpoint, start all processes "
            f"again with the same command. ({error})"
        ) from error


def should_stop(step: int) -> bool:
    """Whether all should save and end after this step, as one got a signal; must be called every step."""
    if is_single_process():
        return stopping.received() is not None
    return multihost_utils.reached_preemption_sync_point(step)


def stop_signal() -> signal.Signals:
    """The signal that made ``should_stop`` true: SIGINT if this process got Ctrl-C, else SIGTERM."""
    return signal.Signals(stopping.received() or signal.SIGTERM)
