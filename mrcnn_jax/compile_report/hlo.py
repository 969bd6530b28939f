"""Reads the text of a compiled XLA program: operations, how often each runs, and the bytes of arrays."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from functools import cached_property

_BYTES = {"pred": 1, "token": 0} | {
    kind: int(re.sub(r"\D*(\d+).*", r"\1", kind)) // 8
    for kind in ("s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f16", "bf16", "f32", "f64")
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """The type of an array: "f32", its shape, and what the layout says about it ("1,0:T(8,128)")."""

    kind: str
    shape: tuple[int, ...]
    layout: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BYTES.get(self.kind, 1)

    @property
    def padded_bytes(self) -> int:
        """Bytes with the two minor axes rounded up to whole tiles, as a TPU holds them."""
        order = [int(axis) for axis in self.layout.partition(":")[0].split(",") if axis]
        tile = re.search(r"T\(([\d,]+)\)", self.layout)
        shape = list(self.shape)
        if tile is not None:
            for extent, axis in zip(reversed(tile[1].split(",")), order, strict=False):
                shape[axis] = -(-shape[axis] // int(extent)) * int(extent)
        return math.prod(shape) * _BYTES.get(self.kind, 1)

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a computation; ``attributes`` is the text after its operands."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    literal: str  # of a constant

    @cached_property
    def arrays(self) -> tuple[ArrayType, ...]:
        """The arrays of the result."""
        return tuple(
            ArrayType(kind, tuple(int(n) for n in shape.split(",") if n), layout)
            for kind, shape, layout in _ARRAY.findall(self.type)
        )

    @cached_property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)

    @property
    def scope(self) -> str:
        """The JAX scopes that the operation comes from, as in ``jit(f)/backbone/conv``."""
        return self._found(r'op_name="([^"]*)"')

    @property
    def target(self) -> str:
        """What a custom call calls."""
        return self._found(r'custom_call_target="([^"]*)"')

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate (of one run), which only a TPU's has."""
        found = self._found(r'"estimated_cycles":"(\d+)"')
        return int(found) if found else None

    @property
    def body(self) -> str:
        return self._found(r"body=%?([\w.\-]+)")

    @property
    def condition(self) -> str:
        return self._found(r"condition=%?([\w.\-]+)")

    @property
    def known_trips(self) -> int | None:
        found = self._found(r'"known_trip_count":\{"n":"(\d+)"')
        return int(found) if found else None

    @property
    def called(self) -> list[str]:
        """The computations of a fusion, call, conditional or asynchronous operation."""
        names = re.findall(
            r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", self.attributes
        )
        branches = self._found(r"branch_computations=\{([^}]*)\}")
        return names + [name.strip().lstrip("%") for name in branches.split(",") if name]

    @property
    def config(self) -> dict:
        """The backend's own settings."""
        start = self.attributes.find("backend_config={")
        if start < 0:
            return {}
        text = _balanced(self.attributes[start + len("backend_config=") :], "{", "}")
        return json.loads(text)

    def _found(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Run:
    """An operation that runs so many ``times``, or, if that is not ``known``, at least so many."""

    operation: Operation
    times: int
    known: bool


class Program:
    """The computations of a compiled program, by name, from its text (``Compiled.as_text()``)."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Operation]] = {}
        self.entry = ""
        current: list[Operation] = []
        for line in text.splitlines():
            if found := _COMPUTATION.fullmatch(line):
                current = self.computations.setdefault(found[2], [])
                self.entry = found[2] if found[1] else self.entry
            elif line.startswith("  ") and " = " in line:
                current.append(_operation(line))
        if not self.entry:
            raise ValueError("this is not the text of a compiled program: it has no ENTRY computation")
        self.by_name = {op.name: op for ops in self.computations.values() for op in ops}

    def runs(self) -> Iterator[Run]:
        """Every operation that runs by itself, with how often; of a conditional, the longest branch does."""

        def walk(computation: str, times: int, known: bool) -> Iterator[Run]:
            for op in self.computations.get(computation, []):
                yield Run(op, times, known)
                if op.opcode == "while":
                    trips = self.trips(op)
                    yield from walk(op.body, times * (trips or 1), known and trips is not None)
                elif op.opcode == "conditional":
                    yield from max((list(walk(name, times, known)) for name in op.called), key=len)
                elif op.opcode in ("call", "async-start"):
                    for name in op.called:
                        yield from walk(name, times, known)

        return walk(self.entry, 1, True)

    def trips(self, loop: Operation) -> int | None:
        """How often the body of a ``while`` runs, if the compiler knows it."""
        if loop.known_trips is not None:
            return loop.known_trips
        # A TPU's compiler does not say; it is the constant that the condition compares the counter with.
        constants = [
            int(op.literal)
            for op in self.computations.get(loop.condition, [])
            if op.opcode == "constant" and op.literal.isdecimal()
        ]
        compares = [op for op in self.inner(loop.condition) if op.opcode == "compare"]
        if len(constants) == 1 and len(compares) == 1 and "direction=LT" in compares[0].attributes:
            return constants[0]
        return None

    def inner(self, computation: str) -> Iterator[Operation]:
        """The operations of a computation and of the fusions in it."""
        for op in self.computations.get(computation, []):
            yield op
            if op.opcode == "fusion":
                for name in op.called:
                    yield from self.inner(name)

    def scope_of(self, op: Operation, depth: int = 3) -> str:
        """The scopes of an operation; of one that the compiler added, those of what it consists of or reads.

        A copy into another layout, for example, has none of its own.
        """
        if op.scope or not depth:
            return op.scope
        fused = [part for name in op.called for part in reversed(self.computations.get(name, []))]
        sources = fused + [self.by_name[name] for name in op.operands if name in self.by_name]
        return next(filter(None, (self.scope_of(source, depth - 1) for source in sources)), "")

    def parts(self, op: Operation) -> list[Operation]:
        """What an operation consists of: of a fusion what is fused, else itself."""
        return [part for name in op.called for part in self.inner(name)] if op.opcode == "fusion" else [op]


def _operation(line: str) -> Operation:
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    kind = _balanced(rest) if rest.startswith("(") else rest.partition(" ")[0]
    opcode, _, rest = rest[len(kind) :].strip().partition("(")
    inside = _balanced(f"({rest}")
    return Operation(
        name=name.lstrip("%"),
        type=kind,
        opcode=opcode,
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)) if opcode != "constant" else (),
        attributes=rest[len(inside) - 1 :],
        literal=inside[1:-1] if opcode == "constant" else "",
    )


def _balanced(text: str, opening: str = "(", closing: str = ")") -> str:
    """The beginning of ``text``, an opening bracket, up to the bracket that closes it."""
    depth = 0
    for end, character in enumerate(text):
        depth += (character == opening) - (character == closing)
        if not depth:
            return text[: end + 1]
    return text
