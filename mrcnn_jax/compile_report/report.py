"""Adds up what a compiled program costs: memory, time by stage and kind, loops, collectives, padding.

All times are estimates. A TPU's are the compiler's own, in cycles; where it has none, and on a GPU, a time is
the least that an operation can take: its bytes at the memory's bandwidth, and a matmul's operations at the
peak rate.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from typing import Any

from mrcnn_jax.compile_report.chips import Chip, Gpu
from mrcnn_jax.compile_report.hlo import Operation, Program, Run
from mrcnn_jax.compile_report.stages import STAGES, pass_of, stage_of
from mrcnn_jax.compile_report.work import matmul_operations, moved_bytes

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# What an operation is, by the first of these that it is or contains, if it is a fusion.
_KINDS = {
    "convolution": ("convolution", "dot"),
    "sort": ("sort", "topk"),
    "scatter": ("scatter",),
    "gather": ("gather",),
    "slice": ("dynamic-slice", "dynamic-update-slice"),
    "reduction": ("reduce", "reduce-window", "select-and-scatter"),
    "pad": ("pad", "concatenate"),
}
_COPIES = {"copy", "transpose", "reshape", "bitcast", "parameter", "slice", "tuple", "constant"}
_NO_WORK = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional"),
    *("ConcatBitcast", "AllocateBuffer"),  # custom calls of a TPU, which only name memory
}
# A TPU copies the operands of later operations into its cores' memory while it computes.
_AHEAD = {"copy-start", "slice-start"}

# A loop over the boxes or the regions of an image would run hundreds of times.
MOST_TRIPS = 256


@dataclasses.dataclass
class Time:
    """Milliseconds of a stage, and of what its gradient adds: recomputed activations, and the gradient."""

    forward: float = 0.0
    recomputed: float = 0.0
    gradient: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.recomputed + self.gradient

    def add(self, which: str, milliseconds: float) -> None:
        setattr(self, which, getattr(self, which) + milliseconds)


@dataclasses.dataclass(frozen=True)
class Loop:
    """Loops from the same place: their trips, None if not known, and how often they are entered together."""

    stage: str
    scope: str
    trips: int | None
    entered: int


@dataclasses.dataclass(frozen=True)
class Collective:
    """The communication of one kind and stage: how often it happens, and the bytes of the results."""

    kind: str
    stage: str
    types: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Costly:
    """One of the operations that cost most: milliseconds, or bytes lost to padding."""

    stage: str
    kind: str
    type: str
    scope: str
    amount: float
    times: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    arguments: int
    results: int
    aliased: int  # results that take the place of arguments
    temporary: int
    code: int
    limit: int

    @property
    def total(self) -> int:
        return self.arguments + self.results - self.aliased + self.temporary + self.code


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiled program costs, on each device."""

    memory: Memory
    stages: dict[str, Time]
    kinds: dict[str, float]  # milliseconds
    bounded: float  # milliseconds of the total without an estimate of the compiler
    operations: int
    ahead: int  # bytes copied into the cores' memory while they compute, not part of the time
    loops: list[Loop]
    collectives: list[Collective]
    padding: list[Costly]
    largest: list[Costly]
    matmuls: dict[str, dict[str, int]]  # their number, by stage and types
    kernels: dict[str, int]  # by the name of the custom call

    @property
    def milliseconds(self) -> float:
        return sum(time.total for time in self.stages.values())

    def problems(self, allowed_collectives: tuple[str, ...]) -> list[str]:
        """What makes the program unfit for the chip, in words."""
        found = []
        if self.memory.total > self.memory.limit:
            found.append(f"needs {self.memory.total / 1e9:.1f} GB of {self.memory.limit / 1e9:.1f} GB")
        others = {c.kind for c in self.collectives} - set(allowed_collectives)
        found += [f"has {kind}" for kind in sorted(others)]
        found += [
            f"has a loop of {loop.trips} trips in {loop.stage}: {loop.scope}"
            for loop in self.loops
            if (loop.trips or 0) > MOST_TRIPS
        ]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, with the totals."""
        values = dataclasses.asdict(self)
        values["milliseconds"] = self.milliseconds
        values["memory"]["total"] = self.memory.total
        return values


def make_report(compiled: Any, chip: Chip, *, top: int = 15) -> Report:
    """The report of a ``jax.stages.Compiled`` for a chip, with the ``top`` operations of each list."""
    stats = compiled.memory_analysis()
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        results=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        limit=chip.memory,
    )
    return read_report(Program(compiled.as_text()), memory, chip, top=top)


def read_report(program: Program, memory: Memory, chip: Chip, *, top: int) -> Report:
    """The report of a program that was read from its text."""
    stages: dict[str, Time] = defaultdict(Time)
    kinds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[tuple[str, str, str]] = Counter()  # of collectives
    volumes: Counter[tuple[str, str, str]] = Counter()
    matmuls: dict[str, Counter[str]] = defaultdict(Counter)
    kernels: Counter[str] = Counter()
    loops: Counter[tuple[str, str, int | None]] = Counter()
    costly: list[Costly] = []
    padding: list[Costly] = []
    bounded, operations, ahead = 0.0, 0, 0
    for run in program.runs():
        op, scope = run.operation, program.scope_of(run.operation)
        stage = stage_of(scope)
        if op.opcode == "while":
            loops[stage, scope, program.trips(op)] += run.times
        if {op.opcode, op.target} & _NO_WORK or op.opcode.endswith("-done"):
            continue
        if op.opcode in _AHEAD:
            ahead += run.times * op.arrays[0].bytes
            continue
        operations += run.times
        collective = op.opcode.removesuffix("-start")
        if collective in COLLECTIVES:
            types = ", ".join(sorted({array.kind for array in op.arrays}))
            counts[collective, stage, types] += run.times
            volumes[collective, stage, types] += run.times * op.bytes
            continue
        if op.opcode == "custom-call":
            kernels[op.target] += run.times
        for types in _matmul_types(program, op):
            matmuls[stage][types] += run.times
        milliseconds, is_bound = _milliseconds(program, run, chip)
        kind = kind_of(program, op)
        kinds[kind] += milliseconds
        bounded += milliseconds if is_bound else 0.0
        stages[stage].add(pass_of(scope), milliseconds)
        lost = sum(array.padded_bytes - array.bytes for array in op.arrays)
        about = stage, kind, _short(op), scope
        costly.append(Costly(*about, amount=milliseconds, times=run.times))
        padding.append(Costly(*about, amount=lost, times=run.times))
    order = {stage: number for number, stage in enumerate(STAGES)}
    return Report(
        memory=memory,
        stages=dict(sorted(stages.items(), key=lambda item: order.get(item[0], len(order)))),
        kinds=dict(sorted(kinds.items(), key=lambda item: -item[1])),
        bounded=bounded,
        operations=operations,
        ahead=ahead,
        loops=[Loop(*place, entered) for place, entered in loops.items()],
        collectives=[Collective(*key, count, volumes[key]) for key, count in sorted(counts.items())],
        padding=_most(padding, top, least=1e6),
        largest=_most(costly, top, least=0.0),
        matmuls={stage: dict(types) for stage, types in sorted(matmuls.items())},
        kernels=dict(kernels.most_common()),
    )


def kind_of(program: Program, op: Operation) -> str:
    """What an operation is in the main: "convolution" (or another matmul), "copy", "gather", ..."""
    if op.opcode == "custom-call":
        return "convolution" if re.search(r"conv|gemm|matmul", op.target) else op.target
    opcodes = {part.opcode for part in program.parts(op)}
    for kind, members in _KINDS.items():
        if opcodes & set(members):
            return kind
    return "copy" if opcodes <= _COPIES or op.opcode.startswith(("copy", "async")) else "elementwise"


def _milliseconds(program: Program, run: Run, chip: Chip) -> tuple[float, bool]:
    """An operation's estimated time, and whether it is only a lower bound."""
    op = run.operation
    if op.cycles is not None:
        return 1e3 * run.times * op.cycles / chip.clock, False
    seconds = moved_bytes(program, op) / chip.bandwidth
    if isinstance(chip, Gpu):
        types = _matmul_types(program, op)
        rate = chip.float32_rate if any(t.startswith("f32") for t in types) else chip.bfloat16_rate
        seconds = max(seconds, matmul_operations(program, op) / rate)
    return 1e3 * run.times * seconds, True


def _matmul_types(program: Program, op: Operation) -> list[str]:
    """The types of the operands and results of the convolutions and matmuls in an operation."""
    found = []
    for part in program.parts(op):
        is_call = part.opcode == "custom-call" and kind_of(program, part) == "convolution"
        if is_call or part.opcode in ("convolution", "dot"):
            operands = [program.by_name[name].arrays for name in part.operands[:2] if name in program.by_name]
            kinds = " x ".join(arrays[0].kind for arrays in operands if arrays)
            found.append(f"{kinds} -> {part.arrays[0].kind}")
    return found


def _short(op: Operation) -> str:
    return ", ".join(map(str, op.arrays[:3])) + (", ..." if len(op.arrays) > 3 else "")


def _most(costly: list[Costly], top: int, *, least: float) -> list[Costly]:
    return [c for c in sorted(costly, key=lambda c: -c.amount)[:top] if c.amount > least]
