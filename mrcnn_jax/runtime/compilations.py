"""How programs are compiled; compilations are announced, with a warning if there are too many of them."""

import importlib.metadata
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax import Array

Canvas = tuple[int, int]  # height, width

# Called with the program and its canvas in words, and None before, the seconds that it took after compiling.
Listener = Callable[[str, float | None], None]
_listener: Listener | None = None

_CPU_OPTIONS: dict[str, str | bool | int] = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_backend_optimization_level": 2,
}
_OLDER_GPU_OPTIONS: dict[str, str | bool | int] = {"xla_gpu_ftz": True}


def compiler_options(device: jax.Device) -> dict[str, str | bool | int]:
    """Compiler options for the model's programs on devices like this one.

    On a CPU, where they were tried, they disable XLA's "ynn" convolution fusions, which makes training 2 to 3
    times faster (measured). Without them, XLA's concurrency-optimized scheduler must be off, too: in some
    graphs in which RoIAlign and convolutions ran concurrently it gave a few regions wrong logits,
    reproducibly, while any other schedule gave the right ones. XLA must also keep this package's optimization
    barriers until it has fused and scheduled the program; it would expand them earlier, and a training step
    would take half as much memory again. LLVM's optimization level 2 is as fast as 3 and compiles a training
    step in a tenth less time. If jaxlib's version is one that they were not tried on (it may not know them),
    there are none.

    On GPUs before Hopper (compute capability 9), subnormal numbers count as zero. Otherwise XLA adds float32
    to memory in a loop of compare and swap: jaxlib 0.10.2's programs for an A100 show it. An H100's have
    native additions anyway, and with this option its bfloat16 comparisons are not assembled.

    If the user has set any of a device's options in ``XLA_FLAGS``, there are none.
    """
    options: dict[str, str | bool | int] = {}
    if device.platform == "cpu" and importlib.metadata.version("jaxlib").startswith(("0.10.", "0.12.")):
        options = _CPU_OPTIONS
    # AMD's are not numbers but names, such as gfx942.
    capability = re.fullmatch(r"(\d+)\.\d+", getattr(device, "compute_capability", ""))
    if device.platform == "gpu" and capability is not None and int(capability[1]) < 9:
        options = _OLDER_GPU_OPTIONS
    set_by_user = any(f"--{name}" in os.environ.get("XLA_FLAGS", "") for name in options)
    return {} if set_by_user else dict(options)


def quick_compilation() -> dict[str, int]:
    """Compiler options for a program that runs once: a CPU compiles it quickly rather than well."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


@contextmanager
def watch_compilations(listener: Listener | None) -> Iterator[None]:
    """The context in which ``listener``, in place of any other, is told of compilations; None: nobody is."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


class CompilationTracker:
    """Tracks how often one jitted function is compiled: once per combination of input shapes and dtypes.

    Args:
        program: Name of the function in warnings.
        canvases: The canvases of its images; one compilation is expected for each.
    """

    def __init__(self, program: str, canvases: Sequence[Canvas]) -> None:
        self._program = program
        self._canvases = tuple(canvases)
        self._compiled: dict[Canvas, list[dict[str, str]]] = {}

    def record(self, images: np.ndarray | Array, inputs: Any) -> bool:
        """Whether this call compiles the function; warns, giving the reason, if that was not expected.

        Args:
            images: [B H W C].
            inputs: All arguments of the call that may change between calls, the images included.
        """
        height, width = images.shape[1:3]
        described = {
            jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype} {list(leaf.shape)}"
            for path, leaf in jax.tree.leaves_with_path(inputs)
        }
        compiled = self._compiled.setdefault((height, width), [])
        if described in compiled:
            return False
        reason = ""
        if compiled:
            names = sorted(compiled[-1].keys() | described.keys())
            reason = "; ".join(
                f"{name}: {described.get(name, 'none')}, before {compiled[-1].get(name, 'none')}"
                for name in names
                if described.get(name) != compiled[-1].get(name)
            )
        elif (height, width) not in self._canvases:
            planned = ", ".join(f"{height}x{width}" for height, width in self._canvases)
            reason = f"images are {height}x{width}, which is not in data.canvases ({planned})"
        compiled.append(described)
        if reason:
            warnings.warn(f"{self._program} is compiled again, which takes time: {reason}", stacklevel=3)
        return True

    @contextmanager
    def announced(self, images: np.ndarray | Array, compiles: bool) -> Iterator[None]:
        """The context of a call of the function, which the listener is told of if it ``compiles``.

        The time is that of the call, which does not wait for the function's results.
        """
        if not compiles or _listener is None:
            yield
            return
        listener, (height, width) = _listener, images.shape[1:3]
        what = f"{self._program} for canvas {height}x{width}"
        listener(what, None)
        begin = time.perf_counter()
        yield
        listener(what, time.perf_counter() - begin)
