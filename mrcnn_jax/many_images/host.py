"""What the workers of one machine share: its cores, and programs that only one of them compiles."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []  # locks that this process keeps until it ends


def take_cores(count: int) -> list[int]:
    """Restricts this process to ``count`` cores that no other worker, of any job, has taken; returns them.

    XLA makes as many threads as a process may use cores, and each worker would otherwise use all of them. A
    process that ends, however it does, gives its cores back. If too few are left, or the file system has no
    locks, the process may use all, and the list is empty. Linux only.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    locks: dict[int, IO[str]] = {}
    with _alone("cores"):  # else two workers could take some of the last cores each, and both too few
        for core in sorted(os.sched_getaffinity(0)):
            lock = (_folder() / f"core-{core}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            locks[core] = lock
            if len(locks) == count:
                break
        else:
            for lock in locks.values():
                lock.close()
            return []
    _held.extend(locks.values())
    for thread in os.listdir("/proc/self/task"):  # new threads inherit it from the one that starts them
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), locks)
    return list(locks)


def compile_once(name: str, cache: Path, compile_all: Callable[[], None]) -> None:
    """Calls ``compile_all``, but only one process of this machine at a time until the first has succeeded.

    The others then find the programs in JAX's ``cache``, in which a file named ``name`` says that they are
    there.
    """
    marker = cache / f"{name}.compiled"
    with _alone(f"compile-{name}"):
        if not marker.exists():
            compile_all()
            cache.mkdir(parents=True, exist_ok=True)
            marker.touch()
            return
    compile_all()


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Waits until no other process of this machine is in the block of this name, where there are locks."""
    with (_folder() / f"{name}.lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    """A folder for locks of this machine: several may share the home directory."""
    folder = Path.home() / ".cache" / "mrcnn_jax" / "locks" / socket.gethostname()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
