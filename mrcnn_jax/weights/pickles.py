"""Pickles read as data: nothing that they name is imported, and nothing is called.

A pickle is a program for a stack machine, some of whose instructions import and call what they like. The
machine here answers these with functions of this project, its *builders*, for the few names that arrays are
pickled under; any other name is an error. What it makes are plain values, and stand-ins for the rest.
(Python's own, kept to a list of names, still lets a file set attributes of what is on the list.)
"""

import math
import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import numpy as np

Builder = Callable[[tuple], Any]

# The instructions that put their own argument on the stack.
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
    """A class or function that a pickle refers to, known by its dotted name alone."""

    dotted: str


class Stored(ABC):
    """An array or tensor of a weights file."""

    @abstractmethod
    def array(self) -> np.ndarray:
        """Its values, in any layout and byte order. Raises ValueError if the file has not as many."""


def read_pickle(
    stream: BinaryIO, builders: Mapping[str, Builder], resolve: Callable[[Any], Any] | None = None
) -> Any:
    """The value of the pickle that the stream stands at; the stream is then behind it.

    The strings of Python 2 are read as latin-1. Dicts keep the entries under strings only: no weight has
    another key, and hashing keys that a file makes up could take forever. The attributes of dicts are passed
    over.

    Args:
        builders: by dotted name, what a call with these arguments makes; ValueError for wrong ones.
        resolve: what a persistent id stands for. Without it there must be none.

    Raises:
        ValueError: the pickle is damaged, it names something that is not in ``builders``, or it does what no
            pickle of arrays has to do.
    """
    try:
        return _run(stream, builders, resolve)
    except (IndexError, KeyError) as error:  # of an empty stack, or of a memo that was never made
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
            _refuse(dotted)
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
                _of_type(stack[-1], list).append(value)
            case "APPENDS":
                values = pop_to_mark()
                _of_type(stack[-1], list).extend(values)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_add({}, pop_to_mark()))
            case "SETITEM":
                pair = pop(2)
                _add(_of_type(stack[-1], dict), pair)
            case "SETITEMS":
                pairs = pop_to_mark()
                _add(_of_type(stack[-1], dict), pairs)
            case "GLOBAL":
                push_name(arg.replace(" ", "."))
            case "STACK_GLOBAL":
                module, name = pop(2)
                push_name(f"{_of_type(module, str)}.{_of_type(name, str)}")
            case "INST":
                _refuse(arg.replace(" ", "."))
            case "REDUCE" | "NEWOBJ":
                function, arguments = pop(2)
                stack.append(builders[_of_type(function, Name).dotted](_of_type(arguments, tuple)))
            case "BUILD":
                (state,) = pop(1)
                if not isinstance(stack[-1], dict):
                    _of_type(stack[-1], _Stateful).build(state)
            case "BINPERSID" if resolve is not None:
                stack.append(resolve(stack.pop()))
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(
                    f"the pickle has the instruction {name} at byte {position}, which no array needs"
                )


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"the pickle is damaged: a {type(value).__name__} where a {kind.__name__} must be")
    return value


def _add(target: dict[str, Any], flat: list[Any]) -> dict[str, Any]:
    """``target`` with more entries, of a list where key and value take turns."""
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if isinstance(key, str):
            target[key] = value
    return target


def _refuse(dotted: str) -> NoReturn:
    # The name is the file's: quoted and cut, so that it cannot write on the user's terminal.
    raise ValueError(
        f"it refers to {dotted[:100]!r}, which could run code and which weights alone do not need. Whoever "
        "trusts the file can save just the weights: torch.save(model.state_dict(), ...)"
    )


class _Stateful(ABC):
    """What a pickle may complete after it has made it."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Takes on the state that the pickle has for it."""


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
    """An array as it is pickled; text is bytes in latin-1.

    Its values are made when asked for, as a file may have them once and refer to them a million times.
    """

    def __init__(self, *content: Any) -> None:
        self._content = content  # shape, dtype, whether in Fortran's order, values

    def build(self, state: Any) -> None:
        match state:
            case (int(), *content):  # the version of this form comes first
                self._content = tuple(content)
            case _:
                raise ValueError("the pickle has an array of an unknown form")

    def array(self) -> np.ndarray:
        match self._content:
            case (tuple(shape), _DType(dtype=dtype), int(fortran), bytes() | bytearray() | str() as data):
                if element_count(shape) * dtype.itemsize != len(data):
                    raise ValueError(f"the pickle has an array of {shape} {dtype} of {len(data)} bytes")
                raw = data.encode("latin-1") if isinstance(data, str) else data
                return np.ndarray(shape, dtype, buffer=raw, order="F" if fortran else "C")
        raise ValueError("the pickle has an array that is not of plain numbers")


def element_count(shape: tuple) -> int:
    """The number of elements of an array of this shape; ValueError for what is no shape."""
    if len(shape) > 32 or not all(type(side) is int and 0 <= side < 2**63 for side in shape):
        raise ValueError("a shape must be of 32 whole numbers from 0 at most")
    return math.prod(shape)


def _make_dtype(arguments: tuple) -> _DType:
    match arguments:
        case (str(code), *_) if code in _DTYPES:
            return _DType(code)
        case (str(code), *_):
            raise ValueError(f"the pickle has an array of dtype {code[:20]!r}, which is not plain numbers")
    raise ValueError("the pickle has a dtype without a code")


def _make_array(arguments: tuple) -> _Array:
    match arguments:
        case (Name("numpy.ndarray"), (0,), b"b" | "b"):  # a placeholder; its state follows
            return _Array()
    raise ValueError("the pickle reconstructs something else than an ndarray")


def _make_scalar(arguments: tuple) -> _Array:
    match arguments:
        case (dtype, data):
            return _Array((), dtype, False, data)
    raise ValueError("the pickle has a NumPy scalar without a value")


def _make_array_of_buffer(arguments: tuple) -> _Array:
    match arguments:
        case (data, dtype, shape, "C" | "F" as order):
            return _Array(shape, dtype, order == "F", data)
    raise ValueError("the pickle has an array of an unknown order")


def _encode(arguments: tuple) -> str:
    """How Python 3 writes bytes for Python 2 to read; they stay text, as those of Python 2 do."""
    match arguments:
        case (str(text), "latin1"):
            return text
    raise ValueError("the pickle encodes text in another way than latin1")


def _make_no_bytes(arguments: tuple) -> str:
    """How it writes that there are none."""
    if arguments:
        raise ValueError("the pickle makes bytes of something")
    return ""


def _make_dict(arguments: tuple) -> dict[str, Any]:
    match arguments:
        case ():
            return {}
        case (list(pairs),):  # of Python 2
            made = _add({}, [item for key, value in pairs for item in (key, value)])
            pairs.clear()  # lest a small file has one long list made into a million dicts
            return made
    raise ValueError("the pickle has an OrderedDict that is not of pairs")


def ignore(arguments: tuple) -> _Ignored:
    """Builder of what may stand beside the weights and is not looked at."""
    return _Ignored()


def only_named(arguments: tuple) -> NoReturn:
    """Builder of a type that arrays refer to and that nothing calls."""
    raise ValueError("the pickle calls a type that arrays only refer to")


NUMPY_BUILDERS: Mapping[str, Builder] = {
    "numpy.ndarray": only_named,
    "numpy.dtype": _make_dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _make_no_bytes,
    "collections.OrderedDict": _make_dict,
    # NumPy 1 and NumPy 2; _frombuffer is of protocol 5.
    **{f"numpy.{core}.multiarray._reconstruct": _make_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _make_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _make_array_of_buffer for core in ("core", "_core")},
}
