"""What the workers of one machine share: its cores, a folder, and programs that only one of them compiles."""

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
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
            for held in locks.values():
                held.close()
            return []
    _held.extend(locks.values())
    for thread in os.listdir("/proc/self/task"):  # new threads inherit it from the one that starts them
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), locks)
    return list(locks)


def compile_once(name: str, cache: str | None, compile_all: Callable[[], None]) -> None:
    """Calls ``compile_all``, but only one process of this machine at a time until the first has succeeded.

    The others then find the programs in JAX's ``cache``, in which a file named ``name`` says that they are
    there. Without a cache, or with one at a URL, all processes compile at the same time.
    """
    if not cache or "://" in cache:
        compile_all()
        return
    marker = Path(cache) / f"{name}.compiled"
    with _alone(f"compile-{name}"):
        if not marker.exists():
            compile_all()
            with contextlib.suppress(OSError):  # then JAX cannot write there, either
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
            return
    compile_all()


def cache_folder(name: str) -> Path:
    """A folder of this name: ``~/.cache/mrcnn_jax/NAME``, or one among the temporary files.

    The home directory may be read-only, or missing, as in containers that run under any user's number. Raises
    PermissionError if another user has made the folder among the temporary files.
    """
    folder = Path.home() / ".cache" / "mrcnn_jax" / name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    own = Path(tempfile.gettempdir()) / f"mrcnn_jax-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.lstat().st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "this folder belongs to another user", str(own))
    (own / name).mkdir(parents=True, exist_ok=True)
    return own / name


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Waits until no other process of this machine is in the block of this name, where there are locks."""
    with (_folder() / f"{name}.lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    """A folder for locks of this machine: several may share the home directory."""
    return cache_folder(f"locks/{socket.gethostname()}")
