"""One run by several processes, one or more on each host: they join, agree, and exchange results.

Everything here is done by all processes alike, or the others wait for ever. With one process it does nothing.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

_HEARTBEAT_S = 40  # without a sign of life from a process, before the others are ended
_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # by which MPI says how many it has started
_asked = False  # by SIGTERM, to stop
_T = TypeVar("_T")


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    stops_when_asked: bool,
) -> None:
    """Makes this process one of a run's; to be called before anything is computed with JAX.

    Without arguments JAX finds out from SLURM, Open MPI, Kubernetes or the TPU which processes there are;
    where none of these started it, the process is alone.

    Args:
        coordinator: ``host:port`` of process 0, where it listens and the others find it.
        num_processes: How many there are; 1, alone, asks nobody.
        process_id: Which this is, from 0.
        stops_when_asked: Whether SIGTERM no longer ends the process, but is left to ``asked_to_stop``.

    Raises:
        ValueError: some arguments are missing or contradict each other, or MPI started several processes
            that JAX cannot tell apart.
    """
    given = (coordinator, num_processes, process_id)
    if given != (None, 1, None):
        _check_given(*given)
        jax.config.update("jax_enable_preemption_service", stops_when_asked)
        try:
            jax.distributed.initialize(*given, heartbeat_timeout_seconds=_HEARTBEAT_S)
        except ValueError as error:
            if given != (None, None, None) or "coordinator_address" not in str(error):
                raise
            _check_launcher()
    if not alone():
        _connect()
    elif stops_when_asked:
        signal.signal(signal.SIGTERM, _note_signal)


def _check_given(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    given = (coordinator, num_processes, process_id)
    if None in given and given != (None, None, None):
        raise ValueError(
            "--coordinator, --num_processes and --process_id must be given together, or none of them where "
            "JAX can find them out"
        )
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator}: must be host:port, such as {coordinator}:9876")


def _check_launcher() -> None:
    for name in _LAUNCHERS:
        if os.environ.get(name, "1") != "1":
            raise ValueError(
                f"{name} is {os.environ[name]}, but JAX does not know the launcher of these processes; give "
                "--coordinator, --num_processes and --process_id, see docs/multi_host.md"
            )


def _connect() -> None:
    """Has all devices exchange something while all processes are here.

    The connections that this makes are used for good. Made later, they would have to come about within 30
    seconds (gloo's limit), while one host may take minutes longer than another to prepare.
    """
    gather(None)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    ones = np.ones(jax.local_device_count(), np.float32)
    array = jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), ones)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))(array))


def _note_signal(number: int, _: FrameType | None) -> None:
    """Remembers SIGTERM; the next one ends the process as ever."""
    global _asked
    _asked = True
    signal.signal(number, signal.SIG_DFL)


def alone() -> bool:
    """Whether no other process has joined."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes and reports for all."""
    return jax.process_index() == 0


def gather(value: _T) -> list[_T]:
    """The values of all processes, in their order; of what JSON holds."""
    if alone():
        return [value]
    message = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(message)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(message)] = message
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


@contextmanager
def together() -> Iterator[None]:
    """What is inside is done when all have done it, and fails for all if it fails for one.

    Raises, besides the process's own error, a ValueError that says which other failed and why.
    """
    try:
        yield
    except Exception as error:
        with suppress(jax.errors.JaxRuntimeError):  # the others cannot be told, but the error is here
            gather(str(error))
        raise
    for process, message in enumerate(gather(None)):
        if message is not None:
            raise ValueError(f"process {process}: {message}")


@contextmanager
def noticing_the_dead() -> Iterator[None]:
    """Raises ConnectionError, saying what to do, where JAX finds that another process is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search("gloo|nccl", str(error), re.IGNORECASE):
            raise
        raise ConnectionError(
            f"process {jax.process_index()} cannot reach another one, which has died or given up; that one's "
            "output says why. Started again, all with the same command, the run goes on from its last "
            f"checkpoint. ({error})"
        ) from error


def asked_to_stop(step: int) -> bool:
    """Whether all are to save and end after this step, as one was sent SIGTERM; to be asked at each step."""
    return _asked if alone() else multihost_utils.reached_preemption_sync_point(step)
