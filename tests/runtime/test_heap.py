"""Tests run in separate processes, because the settings last for the whole life of a process."""

import os
import subprocess
import sys

import pytest

from mrcnn_jax.runtime import heap

pytestmark = pytest.mark.skipif(heap._glibc("mallopt") is None, reason="only glibc has mallopt")

PAGES = 2**15  # of 4 KB: 128 MB, more than any arena except the first can hold

PROGRAM = f"""
import ctypes, os, resource, sys
from concurrent.futures import ThreadPoolExecutor
from mrcnn_jax.runtime import heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if "keep" in sys.argv:
    heap.keep_freed_memory()

def write():
    address = ctypes.c_void_p(libc.malloc({PAGES} * 4096))
    libc.memset(address, 1, {PAGES} * 4096)
    libc.free(address)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 4096

with ThreadPoolExecutor(1) as executor:
    before = resident()
    executor.submit(write).result()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    executor.submit(write).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults, resident() - before)
    heap.trim_heap()
    print(resident() - before)
"""


def run(*arguments: str, **environment: str) -> tuple[int, int, int]:
    """Page faults when memory is allocated again, pages kept, and pages left after it was given back."""
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    faults, kept, left = map(int, done.stdout.split())
    return faults, kept, left


def test_memory_is_kept_until_given_back_in_threads_too():
    faults, kept, left = run("keep")
    assert faults < PAGES // 100
    assert kept > 0.99 * PAGES
    assert left < PAGES // 10


def test_without_the_setting_memory_is_allocated_again():
    faults, kept, _ = run()
    assert faults > PAGES // 1000  # with pages of 2 MB, 64
    assert kept < PAGES // 10


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_users_settings_are_kept(name):
    value = "2" if name == "MALLOC_ARENA_MAX" else "glibc.malloc.arena_max=2"
    _, kept, _ = run("keep", **{name: value})
    assert kept < PAGES // 10
