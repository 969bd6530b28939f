"""Process-wide JAX settings, made by the scripts but never by importing the library."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from pathlib import Path

from mrcnn_jax.runtime.heap import keep_freed_memory


def setup_jax(*, keep_memory: bool = True) -> None:
    """Configures JAX for speed; must be called before the process computes anything with JAX.

    On the CPU, it disables XLA's "ynn" convolution fusions, which makes training 2 to 3 times faster
    (measured). Without them, XLA's concurrency-optimized scheduler must be off, too: in some graphs in which
    RoIAlign and convolutions ran concurrently it gave a few regions wrong logits, reproducibly, while any
    other schedule gave the right ones. XLA must also keep this package's optimization barriers until it has
    fused and scheduled the program; it would expand them earlier, and a training step would take half as much
    memory again. LLVM's optimization level 2 is as fast as 3 and compiles a training step in a tenth less
    time. With ``keep_memory``, arrays on the CPU reuse freed memory (see ``heap.py``); training is as fast
    without it, and takes 70 MB less.

    It also enables the persistent compilation cache, in ``~/.cache/mrcnn_jax/xla``. Settings by the user in
    ``XLA_FLAGS`` or ``JAX_COMPILATION_CACHE_DIR`` take precedence.
    """
    if keep_memory and _only_cpu():
        keep_freed_memory()
    import jax  # takes a second, which --help and scripts without arrays need not wait for

    flags = {
        "--xla_cpu_experimental_ynn_fusion_type": "",
        "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
        "--xla_disable_hlo_passes": "cse_barrier_expander",
        "--xla_backend_optimization_level": "2",
    }
    xla_flags = os.environ.get("XLA_FLAGS", "")
    # An unknown XLA flag aborts the process, so set them only for versions and platforms they were tried on.
    tried = importlib.metadata.version("jaxlib").startswith(("0.10.", "0.12.")) and _only_cpu()
    if tried and not any(flag in xla_flags for flag in flags):
        os.environ["XLA_FLAGS"] = " ".join([xla_flags, *map("=".join, flags.items())]).strip()

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
