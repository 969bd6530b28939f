"""Times workloads: warmed up, alternating with a reference implementation, as the median of all turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from jaxlib import _jax

from mrcnn_jax.runtime.compilations import compiler_options

_MIN_TURN_S = 0.2  # shorter workloads run several times per turn


@dataclass(frozen=True)
class Workload:
    """A function to time, and what a reference implementation needs to do the same.

    The reference implementation gets ``settings`` and the result of ``arrays``, which must be called before
    a training step runs, because that consumes the weights.
    """

    name: str
    run: Callable[[], Any]  # runs once and returns when it is done
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: Callable[[], dict[str, np.ndarray]] = dict
    flops: Callable[[], float | None] | None = None
    moved_bytes: int | None = None  # lower bound: inputs and results, once
    images: int | None = None  # per run


class Runner(Protocol):
    """Runs a workload."""

    def seconds(self, times: int) -> float:
        """The seconds that ``times`` runs take."""
        ...


class Local:
    """Runs a workload in this process."""

    def __init__(self, workload: Workload) -> None:
        self._run = workload.run

    def seconds(self, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            self._run()
        return time.perf_counter() - start


def median_seconds(runners: list[Runner], turns: int) -> list[float]:
    """The seconds that one run of each runner's workload takes: the median of ``turns`` alternating turns."""
    times = []
    for runner in runners:
        runner.seconds(1)  # warm-up: compiles, allocates
        times.append(max(1, round(_MIN_TURN_S / runner.seconds(1))))
    measured: list[list[float]] = [[] for _ in runners]
    for _turn in range(turns):
        for runner, count, seconds in zip(runners, times, measured, strict=True):
            seconds.append(runner.seconds(count) / count)
    return [statistics.median(seconds) for seconds in measured]


def count_flops(function: Callable[..., Any], *arguments: Any) -> Callable[[], float | None]:
    """A function that counts the additions and multiplications before the compiler's optimizations.

    It returns None if ``JAX_PLATFORMS`` excludes the CPU: only the CPU's client can count.
    """

    def count() -> float | None:
        try:
            counter = jax.devices("cpu")[0].client
        except RuntimeError:
            return None
        program: Any = jax.jit(function).lower(*arguments).compiler_ir("hlo")
        return _jax.hlo_module_cost_analysis(counter, program.as_hlo_module())["flops"]

    return count


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A function that runs the compiled ``function`` once and waits for the result."""
    options = compiler_options(jax.devices()[0])
    program = jax.jit(function, compiler_options=options).lower(*arguments).compile()
    on_device = jax.device_put(arguments)
    return lambda: jax.block_until_ready(program(*on_device))
