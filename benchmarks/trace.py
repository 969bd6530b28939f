"""Records what a program does with JAX's profiler, and adds its time up by stage of the model."""

import glob
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from mrcnn_jax.compile_report.hlo import Program
from mrcnn_jax.compile_report.stages import PASSES, STAGES, pass_of, stage_of

_CONTAINERS = {"while", "conditional", "call"}  # their parts are recorded, too


class Event(NamedTuple):
    """A recorded run of an operation; ``operation`` may be a kernel's name."""

    operation: str
    milliseconds: float


class Operation(NamedTuple):
    """An operation of a compiled program, and the JAX scopes that it comes from ("jit(f)/backbone/conv")."""

    opcode: str
    scope: str


def record(run: Callable[[], Any], steps: int) -> tuple[float, list[Event]]:
    """The seconds that a step takes, without the profiler, and what it records in ``steps`` steps.

    ``run`` takes a step and waits for it.
    """
    run()  # allocates
    start = time.perf_counter()
    for _ in range(steps):
        run()
    seconds = (time.perf_counter() - start) / steps
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(steps):
                run()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        return seconds, list(_events(jax.profiler.ProfileData.from_file(path)))


def _events(data: Any) -> Iterator[Event]:
    """The runs of operations: on an accelerator of its first device, or else on the host's threads."""
    planes = sorted((p for p in data.planes if re.match("/device:[GT]PU:", p.name)), key=lambda p: p.name)
    if planes:
        lines = list(planes[0].lines)
        # A GPU's streams, a TPU's operations; other lines sum these up.
        lines = [line for line in lines if line.name.startswith(("Stream", "XLA Ops"))]
        if streams := [line for line in lines if line.name.startswith("Stream")]:
            lines = streams
    else:
        lines = [line for plane in data.planes if plane.name == "/host:CPU" for line in plane.lines]
    for line in lines:
        for event in line.events:
            operation = dict(event.stats).get("hlo_op")
            if operation or planes:
                # A TPU's events are named by the operation's text, "%name = ...".
                name = str(operation or event.name).partition(" = ")[0].lstrip("%")
                yield Event(name, event.duration_ns / 1e6)


def read_operations(text: str) -> dict[str, Operation]:
    """The operations in the text of a compiled program, by name and by the name that a GPU's kernel has."""
    program = Program(text)
    operations = {name: Operation(op.opcode, program.scope_of(op)) for name, op in program.by_name.items()}
    return {re.sub(r"[.\-]", "_", name): operation for name, operation in operations.items()} | operations


def summarise(
    operations: dict[str, Operation], events: list[Event], steps: int, step_ms: float
) -> dict[str, Any]:
    """Milliseconds per step by stage and of the costliest operations, and of events of no known operation."""
    stages: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PASSES, 0.0))
    costs: dict[str, float] = defaultdict(float)
    unknown = 0.0
    for event in events:
        operation = operations.get(event.operation)
        if operation is None:
            unknown += event.milliseconds / steps
        elif operation.opcode not in _CONTAINERS:
            stages[stage_of(operation.scope)][pass_of(operation.scope)] += event.milliseconds / steps
            costs[event.operation] += event.milliseconds / steps
    busy = sum(sum(times.values()) for times in stages.values()) + unknown
    return {
        "step_ms": step_ms,
        "busy_ms": busy,
        "idle_ms": max(step_ms - busy, 0.0),
        "unknown_ms": unknown,
        "stages": {name: stages[name] for name in (*STAGES, "other") if name in stages},
        "operations": [
            {"name": name, "ms": ms, "scope": operations[name].scope}
            for name, ms in sorted(costs.items(), key=lambda item: -item[1])
        ][:100],
    }
