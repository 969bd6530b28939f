"""How works are timed: warmed, in turns with the peer, the median of the turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from jaxlib import _jax

_SHORTEST_TURN_S = 0.2  # works that take less are done several times in a turn


@dataclass(frozen=True)
class Work:
    """Something to do, once or again and again.

    ``settings`` and what ``arrays`` makes are what the peer does the same work with; a training step
    consumes them, so they are to be made before it.
    """

    name: str
    run: Callable[[], Any]  # does it once and returns when it is done
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: Callable[[], dict[str, np.ndarray]] = dict
    operations: Callable[[], float | None] | None = None  # counts additions and multiplications
    moved_bytes: int | None = None  # the least that it reads and writes: what it is given and gives, once


class Runner(Protocol):
    """Who does a work: ``seconds(3)`` of doing it three times."""

    def seconds(self, times: int) -> float: ...


class Here:
    """This process."""

    def __init__(self, work: Work) -> None:
        self._run = work.run

    def seconds(self, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            self._run()
        return time.perf_counter() - start


def in_turns(runners: list[Runner], turns: int) -> list[float]:
    """Seconds that each needs for the work once: the median of ``turns``, in each of which all have one."""
    times = []
    for runner in runners:
        runner.seconds(1)  # compiles, allocates
        times.append(max(1, round(_SHORTEST_TURN_S / runner.seconds(1))))
    measured: list[list[float]] = [[] for _ in runners]
    for _turn in range(turns):
        for runner, count, seconds in zip(runners, times, measured, strict=True):
            seconds.append(runner.seconds(count) / count)
    return [statistics.median(seconds) for seconds in measured]


def count_operations(function: Callable[..., Any], *arguments: Any) -> Callable[[], float | None]:
    """A function that counts the additions and multiplications, before the compiler's changes.

    None where ``JAX_PLATFORMS`` leaves out the CPU, whose client counts: an accelerator's cannot.
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
    """What does the jitted ``function`` once and waits for it."""
    program = jax.jit(function).lower(*arguments).compile()
    on_device = jax.device_put(arguments)
    return lambda: jax.block_until_ready(program(*on_device))
