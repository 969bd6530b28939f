"""JAX set up for a process of its own, as the scripts do; importing the library never does."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from pathlib import Path

from mrcnn_jax.runtime.heap import keep_freed_memory


def setup_jax(*, keep_memory: bool = True) -> None:
    """Sets JAX up for speed; to be called before anything is computed with JAX in the process.

    On the CPU it picks XLA's convolutions without the "ynn" fusions, measured 2 to 3 times faster in
    training. Beside them XLA must not order its work for concurrency: some graphs in which RoIAlign and
    convolutions ran side by side gave a few regions wrong logits, the same each time, and right ones in any
    other order. The barriers that this package sets are to last until XLA has fused and ordered its work;
    it would remove them before, and a training step would take half as much memory again. Of LLVM's
    levels 2 has the speed of 3, and compiles a training step in a tenth less time. With
    ``keep_memory`` the CPU's arrays take memory again that others have freed (see ``heap.py``). Training is
    as fast without it, and takes 70 MB less.

    It turns on the persistent compilation cache, in ``~/.cache/mrcnn_jax/xla``. What the user has set in
    ``XLA_FLAGS`` or ``JAX_COMPILATION_CACHE_DIR`` stands.
    """
    if keep_memory and _only_cpu():
        keep_freed_memory()
    import jax  # takes a second, which scripts without arrays and --help need not wait

    ours = {
        "--xla_cpu_experimental_ynn_fusion_type": "",
        "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
        "--xla_disable_hlo_passes": "cse_barrier_expander",
        "--xla_backend_optimization_level": "2",
    }
    xla_flags = os.environ.get("XLA_FLAGS", "")
    # A flag that XLA does not know aborts the process: only for the versions and platform it was tried on.
    known = importlib.metadata.version("jaxlib").startswith("0.10.") and _only_cpu()
    if known and not any(flag in xla_flags for flag in ours):
        os.environ["XLA_FLAGS"] = " ".join([xla_flags, *map("=".join, ours.items())]).strip()

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path.home() / ".cache" / "mrcnn_jax" / "xla" / _machine_type()
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _only_cpu() -> bool:
    """Whether JAX will find no accelerator, told without starting its backends."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(plugin) for plugin in ("jax_plugins", "libtpu"))


def _machine_type() -> str:
    """A name for processors that can run each other's compiled code, as homes are shared between machines."""
    try:
        features = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        features = None
    described = features.group() if features else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
