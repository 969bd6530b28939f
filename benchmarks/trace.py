"""Records what a program does with JAX's profiler, and adds its time up by stage of the model."""

import glob
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

STAGES = (
    *("backbone", "fpn", "rpn", "proposals", "roi_align", "box_head", "mask_head", "keypoint_head"),
    *("select_detections", "optimizer"),
)
WHEN = ("forward", "recomputed", "gradient")
_STAGE = re.compile(rf"\b({'|'.join(STAGES)})\b")
_OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\) |\S+ )([\w\-]+)\(")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CONTAINERS = {"while", "conditional", "call"}  # their parts are recorded, too


class Event(NamedTuple):
    """A recorded run of an operation; ``operation`` may be a kernel's name."""

    operation: str
    milliseconds: float


class Operation(NamedTuple):
    """An operation of a compiled program, and the JAX scopes that it comes from ("jit(f)/backbone/conv")."""

    opcode: str
    scope: str

    @property
    def stage(self) -> str:
        found = _STAGE.findall(self.scope)
        return found[-1] if found else "other"

    @property
    def when(self) -> str:
        if "rematted_computation" in self.scope:
            return "recomputed"
        return "gradient" if "transpose(" in self.scope else "forward"


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
    """The operations in the text of a compiled program, by name and by the name that a GPU's kernel has.

    What the compiler adds, for example a copy into another layout, has no scope. It gets that of the
    operations which it was fused from, or else of an operand.
    """
    lines: dict[str, str] = {}
    opcodes: dict[str, str] = {}
    members: dict[str, list[str]] = {}  # of computations
    current = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = found[1]
        elif found := _OPERATION.match(line):
            lines[found[1]], opcodes[found[1]] = line, found[2]
            members.setdefault(current, []).append(found[1])

    def scope(name: str, depth: int) -> str:
        line = lines.get(name, "")
        if found := re.search(r'op_name="([^"]*)"', line):
            return found[1]
        if not depth:
            return ""
        called = re.search(r"calls=%?([\w.\-]+)", line)
        sources = members.get(called[1], [])[::-1] if called else []
        sources += re.findall(r"%([\w.\-]+)", line.partition("=")[2].partition("), ")[0])
        return next(filter(None, (scope(source, depth - 1) for source in sources)), "")

    operations = {name: Operation(opcode, scope(name, depth=3)) for name, opcode in opcodes.items()}
    return {re.sub(r"[.\-]", "_", name): operation for name, operation in operations.items()} | operations


def summarise(
    operations: dict[str, Operation], events: list[Event], steps: int, step_ms: float
) -> dict[str, Any]:
    """Milliseconds per step by stage and of the costliest operations, and of events of no known operation."""
    stages: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(WHEN, 0.0))
    costs: dict[str, float] = defaultdict(float)
    unknown = 0.0
    for event in events:
        operation = operations.get(event.operation)
        if operation is None:
            unknown += event.milliseconds / steps
        elif operation.opcode not in _CONTAINERS:
            stages[operation.stage][operation.when] += event.milliseconds / steps
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
