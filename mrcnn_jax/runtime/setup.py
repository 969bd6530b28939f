"""Process-wide JAX settings, made by the commands but never by importing the library."""

import hashlib
import importlib.util
import os
import platform
import re
from pathlib import Path

from mrcnn_jax.runtime.heap import keep_freed_memory


def setup(*, keep_memory: bool = True) -> None:
    """Keeps compiled programs and freed memory; the commands call it, a program of your own may.

    It enables JAX's persistent compilation cache, in ``~/.cache/mrcnn_jax/xla``, unless
    ``JAX_COMPILATION_CACHE_DIR`` is set: the next process that runs a program of the same shapes loads it in
    seconds. With ``keep_memory``, arrays on the CPU reuse freed memory (see ``heap.py``), which must be set
    before the process starts threads; training is as fast without it, and takes 70 MB less.

    Call it before the process computes anything with JAX.
    """
    if keep_memory and _only_cpu():
        keep_freed_memory()
    import jax  # takes a second, which --help and commands without arrays need not wait for

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path.home() / ".cache" / "mrcnn_jax" / "xla" / _machine_type()
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _only_cpu() -> bool:
    """Whether JAX will find no accelerator, without initialising its backends."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(plugin) for plugin in ("jax_plugins", "libtpu"))


def _machine_type() -> str:
    """A name shared by CPUs that can run each other's code, since machines may share a home directory."""
    try:
        features = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        features = None
    described = features.group() if features else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
