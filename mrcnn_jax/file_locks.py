"""Keeps two runs from writing the same file."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO


def open_alone(path: Path) -> IO[bytes]:
    """Opens a file to append to, which is created if there is none, and locks it until it is closed.

    A process that ends, however it does, gives its locks back. Where a file system has none, as some over a
    network, the file is not locked. Raises BlockingIOError, naming the file, if another process has it open.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_free = False
    except OSError:
        is_free = True
    else:
        is_free = os.fstat(file.fileno()).st_nlink > 0  # else the other one removed it when it was done
    if not is_free:
        file.close()
        problem = "another run is writing here; wait until it ends, or choose another --output"
        raise OSError(errno.EWOULDBLOCK, problem, str(path))
    return file
