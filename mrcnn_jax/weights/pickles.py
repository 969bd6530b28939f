"""Reads pickles as data: nothing they name is imported, and nothing they name is called.

A pickle is a program for a stack machine, and some of its instructions import and call arbitrary names. The
machine here maps the few names that pickled arrays need to functions of this project, its *builders*; any
other name is an error. It produces plain values, and placeholders for everything else. (Python's own
unpickler, restricted to a list of names, would still let a file set attributes of the objects on that list.)
"""

import math
import pickletools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import numpy as np

Builder = Callable[[tuple], Any]

# Instructions that push their own argument onto the stack.
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_DTYPES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))


@dataclass(frozen=True)
class Name:
    """The dotted name of a class or function that a pickle refers to."""

    dotted: str


class Stored(ABC):
    """An array or tensor of a weights file."""

    @abstractmethod
    def array(self) -> np.ndarray:
        """Its values, in any layout and byte order. Raises ValueError if their number is wrong."""


def read_pickle(
    stream: BinaryIO, builders: Mapping[str, Builder], resolve: Callable[[Any], Any] | None = None
) -> Any:
    """The value of the pickle at the stream's position; leaves the stream after it.

    Python 2 strings are read as latin-1. Dicts keep only entries with string keys: weights have no other
    keys, and hashing keys from an untrusted file could take forever. Attributes of dicts are ignored, and
    sets become empty placeholders.

    Args:
        builders: by dotted name, a function from a call's arguments to its result; raises ValueError for
            wrong arguments.
        resolve: maps a persistent id to its value. If None, persistent ids are an error.

    Raises:
        ValueError: the pickle is damaged, names something that is not in ``builders``, or has an instruction
            that is not needed for arrays.
    """
    try:
        return _run(stream, builders, resolve)
    except (IndexError, KeyError) as error:  # an empty stack, or a memo entry that does not exist
        raise ValueError("the pickle is damaged") from error


def _run(stream: BinaryIO, builders: Mapping[str, Builder], resolve: Callable[[Any], Any] | None) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    arg: Any

    def pop(count: int) -> list[Any]:
        return [stack.pop() for _ in range(count)][::-1]

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    def push_name(dotted: str) -> None:
        if dotted not in builders:
            _reject(dotted)
        stack.append(Name(dotted))

    for opcode, arg, position in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _LITERALS:
                stack.append(arg)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE" as name:
                stack.append(name == "NEWTRUE")
            case "MARK":
                marks.append(len(stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(pop(int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(pop_to_mark())
            case "APPEND":
                (value,) = pop(1)
                _expect(stack[-1], list).append(value)
            case "APPENDS":
                values = pop_to_mark()
                _expect(stack[-1], list).extend(values)
            case "EMPTY_SET":
                stack.append(_Ignored())
            case "ADDITEMS":
                pop_to_mark()
                _expect(stack[-1], _Ignored)
            case "FROZENSET":
                pop_to_mark()
                stack.append(_Ignored())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_add({}, pop_to_mark()))
            case "SETITEM":
                pair = pop(2)
                _add(_expect(stack[-1], dict), pair)
            case "SETITEMS":
                pairs = pop_to_mark()
                _add(_expect(stack[-1], dict), pairs)
            case "GLOBAL":
                push_name(arg.replace(" ", "."))
            case "STACK_GLOBAL":
                module, name = pop(2)
                push_name(f"{_expect(module, str)}.{_expect(name, str)}")
            case "INST":
                _reject(arg.replace(" ", "."))
            case "REDUCE" | "NEWOBJ":
                function, arguments = pop(2)
                stack.append(builders[_expect(function, Name).dotted](_expect(arguments, tuple)))
            case "BUILD":
                (state,) = pop(1)
                if not isinstance(stack[-1], dict):
                    _expect(stack[-1], _Stateful).build(state)
            case "BINPERSID" if resolve is not None:
                stack.append(resolve(stack.pop()))
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(
                    f"the pickle has the instruction {name} at byte {position}, which arrays do not need"
                )


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"the pickle is damaged: expected {kind.__name__}, found {type(value).__name__}")
    return value


def _add(target: dict[str, Any], flat: list[Any]) -> dict[str, Any]:
    """``target``, updated with a list of alternating keys and values."""
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if isinstance(key, str):
            target[key] = value
    return target


# Formats that cannot be converted, by names that only their pickles have.
_OTHER_FORMATS = (
    (
        r"torch\._utils\._rebuild_qtensor|torch\.Q\w*Storage|torch\.(ao|nn|jit)\..*[qQ]uant.*",
        "it holds quantised tensors; convert the file of the model before quantisation",
    ),
    (
        r"torch\.distributed\..*",
        "it is one part of a sharded checkpoint; gather the full state dict in torch and save that",
    ),
    (
        r"deepspeed\..*",
        "it is a part of a DeepSpeed checkpoint; make a state dict of all parts with the zero_to_fp32.py "
        "that lies beside them",
    ),
    (
        r"(mmengine|mmcv|mmdet)\..*",
        "it holds an object of MMDetection or a related project; save only the weights in torch: "
        'torch.save({"state_dict": ...}, ...)',
    ),
    (r"(ultralytics|models\.yolo|models\.common)\..*", "it is a YOLO model, which is not converted"),
    (
        r"__torch__\..*",
        "it is a TorchScript program; save its weights in torch: torch.save(model.state_dict(), ...)",
    ),
    (r"torch\._utils\._rebuild_sparse\w*", "it holds sparse tensors, which no detector has"),
    (r"torch\._utils\._rebuild_meta\w*", "it holds meta tensors, which have no values"),
    (
        r"torch\._utils\._rebuild_tensor_v3|torch\.(storage\.)?UntypedStorage",
        "it holds tensors of a dtype such as float8 or uint16; save the weights as float32 in torch",
    ),
)


def _reject(dotted: str) -> NoReturn:
    for pattern, problem in _OTHER_FORMATS:
        if re.fullmatch(pattern, dotted):
            raise ValueError(problem)
    # The name comes from the file: quoted and truncated, so that it cannot control the user's terminal.
    raise ValueError(
        f"it refers to {dotted[:100]!r}, which could run code and which weights do not need. If you trust "
        "the file, load it in torch and save only the weights: torch.save(model.state_dict(), ...)"
    )


class _Stateful(ABC):
    """An object whose state a pickle may set after creating it."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Sets the pickled state."""


class _Ignored(_Stateful):
    def build(self, state: Any) -> None:
        pass


class _DType(_Stateful):
    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        match state:
            case (int(), "<" | ">" | "=" | "|" as order, None, None, None, *_):
                self.dtype = self.dtype.newbyteorder(order)
            case _:
                raise ValueError("the pickle has an array that is not of plain numbers")


class _Array(Stored, _Stateful):
    """An array as pickled; text stands for latin-1 bytes.

    The values are created on demand, because a file may store them once and refer to them a million times.
    """

    def __init__(self, *content: Any) -> None:
        self._content = content  # shape, dtype, whether in Fortran order, values

    def build(self, state: Any) -> None:
        match state:
            case (int(), *content):  # the format version comes first
                self._content = tuple(content)
            case _:
                raise ValueError("the pickle has an array in an unknown format")

    def array(self) -> np.ndarray:
        match self._content:
            case (tuple(shape), _DType(dtype=dtype), int(fortran), bytes() | bytearray() | str() as data):
                if element_count(shape) * dtype.itemsize != len(data):
                    raise ValueError(f"the pickle has an array {shape} {dtype} with {len(data)} bytes")
                raw = data.encode("latin-1") if isinstance(data, str) else data
                return np.ndarray(shape, dtype, buffer=raw, order="F" if fortran else "C")
        raise ValueError("the pickle has an array that is not of plain numbers")


def element_count(shape: tuple) -> int:
    """The number of elements of an array of this shape; raises ValueError for an invalid shape."""
    if len(shape) > 32 or not all(type(side) is int and 0 <= side < 2**63 for side in shape):
        raise ValueError("a shape must have at most 32 dimensions, all non-negative integers")
    return math.prod(shape)


def _make_dtype(arguments: tuple) -> _DType:
    match arguments:
        case (str(code), *_) if code in _DTYPES:
            return _DType(code)
        case (str(code), *_):
            raise ValueError(f"the pickle has an array of dtype {code[:20]!r}, which is not a plain number")
    raise ValueError("the pickle has a dtype without a code")


def _make_array(arguments: tuple) -> _Array:
    match arguments:
        case (Name("numpy.ndarray"), (0,), b"b" | "b"):  # a placeholder; its state follows
            return _Array()
    raise ValueError("the pickle reconstructs something other than an ndarray")


def _make_scalar(arguments: tuple) -> _Array:
    match arguments:
        case (dtype, data):
            return _Array((), dtype, False, data)
    raise ValueError("the pickle has a NumPy scalar without a value")


def _make_array_from_buffer(arguments: tuple) -> _Array:
    match arguments:
        case (data, dtype, shape, "C" | "F" as order):
            return _Array(shape, dtype, order == "F", data)
    raise ValueError("the pickle has an array in an unknown order")


def _encode(arguments: tuple) -> str:
    """The text by which Python 3 pickles bytes for Python 2; it stays text, like Python 2's own strings."""
    match arguments:
        case (str(text), "latin1"):
            return text
    raise ValueError("the pickle encodes text in a codec other than latin1")


def _make_empty_bytes(arguments: tuple) -> str:
    """The empty text by which Python 3 pickles empty bytes for Python 2."""
    if arguments:
        raise ValueError("the pickle makes bytes from arguments")
    return ""


def _make_dict(arguments: tuple) -> dict[str, Any]:
    match arguments:
        case ():
            return {}
        case (list(pairs),):  # Python 2
            result = _add({}, [item for key, value in pairs for item in (key, value)])
            pairs.clear()  # so that a small file cannot turn one long list into a million dicts
            return result
    raise ValueError("the pickle has an OrderedDict that is not made of pairs")


def ignore(arguments: tuple) -> _Ignored:
    """A placeholder for an object that may accompany the weights and is not needed."""
    return _Ignored()


def never_called(arguments: tuple) -> NoReturn:
    """Raises ValueError: builder of a type that arrays refer to but never call."""
    raise ValueError("the pickle calls a type that arrays only refer to")


NUMPY_BUILDERS: Mapping[str, Builder] = {
    "numpy.ndarray": never_called,
    "numpy.dtype": _make_dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _make_empty_bytes,
    "collections.OrderedDict": _make_dict,
    # NumPy 1 and NumPy 2; _frombuffer is used by protocol 5.
    **{f"numpy.{core}.multiarray._reconstruct": _make_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _make_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _make_array_from_buffer for core in ("core", "_core")},
}
