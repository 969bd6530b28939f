"""What the C library does with memory that was freed: on Linux, by glibc."""

import ctypes
import os
import sys
from collections.abc import Callable

# Parameters of mallopt, as malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Has the process keep what it frees, for what it takes next; to be called before it starts threads.

    Otherwise every large array is mapped anew, and the kernel clears each of its pages as they are first
    written to: up to half of RoIAlign's time on the CPU that it was measured on. Within one arena, as others
    cannot grow beyond 64 MB. What is kept may be several times what is in use, as small things come to lie
    where a large array had been; with the same sizes again and again it soon grew no further. What the user
    has set in ``MALLOC_...`` or ``GLIBC_TUNABLES`` stands.
    """
    set_by_user = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if not set_by_user and (mallopt := _glibc("mallopt")):
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never by itself


def give_memory_back() -> None:
    """Gives the system what was freed, as after a compilation: that of a training step frees a gigabyte."""
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
