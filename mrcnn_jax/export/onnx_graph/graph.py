"""A small writer of ONNX graphs, so that the stages read like arithmetic on arrays.

    graph = Graph()
    x = graph.input("x", np.float32, ["n", 4])
    graph.output("y", graph.Relu(x * 2.0 + 1.0), np.float32, ["n", 4])

Every ONNX operator is a method with the operator's name: its inputs in order, its attributes by keyword. An
input may be a number or an array: floats become float32, ints are int64, and other arrays keep their type.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Read by ONNX Runtime 1.12 and OpenVINO 2022.3. RoiAlign has the half-pixel mode since 16.
OPSET = 17
_IR_VERSION = 8  # the oldest that goes with it
_SHARED = 64  # values: smaller constants are written once, however often they are used

Operand = Any  # a Value, a number or an array


@dataclass(frozen=True)
class Value:
    """A tensor of a graph. Its operators add nodes to the graph."""

    graph: "Graph"
    name: str

    def __add__(self, other: Operand) -> "Value":
        return self.graph.Add(self, other)

    def __radd__(self, other: Operand) -> "Value":
        return self.graph.Add(other, self)

    def __sub__(self, other: Operand) -> "Value":
        return self.graph.Sub(self, other)

    def __rsub__(self, other: Operand) -> "Value":
        return self.graph.Sub(other, self)

    def __mul__(self, other: Operand) -> "Value":
        return self.graph.Mul(self, other)

    def __rmul__(self, other: Operand) -> "Value":
        return self.graph.Mul(other, self)

    def __truediv__(self, other: Operand) -> "Value":
        return self.graph.Div(self, other)

    def __rtruediv__(self, other: Operand) -> "Value":
        return self.graph.Div(other, self)

    def __floordiv__(self, other: Operand) -> "Value":
        """Of integers that are not negative: ONNX rounds towards zero."""
        return self.graph.Div(self, other)

    def __mod__(self, other: Operand) -> "Value":
        return self.graph.Mod(self, other)

    def __gt__(self, other: Operand) -> "Value":
        return self.graph.Greater(self, other)

    def __ge__(self, other: Operand) -> "Value":
        return self.graph.GreaterOrEqual(self, other)

    def __and__(self, other: "Value") -> "Value":
        return self.graph.And(self, other)


class Graph:
    """The nodes, constants, inputs and outputs of a graph while it is written.

    ``layer_names`` has the path of each layer in its model, by the layer's ``id``: see :meth:`weight`.
    """

    def __init__(self, layer_names: Mapping[int, str] | None = None) -> None:
        self._layer_names = layer_names or {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._shared: dict[tuple[Any, ...], Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._section = ""
        self._count = 0

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        if not operator[:1].isupper():
            raise AttributeError(f"there is no ONNX operator {operator!r}")

        def add(*inputs: Operand, outputs: int = 1, **attributes: Any) -> Value | tuple[Value, ...]:
            return self._add(operator, inputs, outputs, attributes)

        return add

    def _add(
        self, operator: str, inputs: Sequence[Operand], outputs: int, attributes: dict[str, Any]
    ) -> Value | tuple[Value, ...]:
        """A node; None stands for an optional input that is left out."""
        name = self._new_name(operator)
        names = [name] if outputs == 1 else [f"{name}:{number}" for number in range(outputs)]
        sources = ["" if value is None else self.value(value).name for value in inputs]
        self._nodes.append(helper.make_node(operator, sources, names, name=name, **attributes))
        values = tuple(Value(self, own) for own in names)
        return values[0] if outputs == 1 else values

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{self._section}{kind}_{self._count}"

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Nodes that the block adds are named ``name/...``, for profiles and pictures of the graph."""
        outer, self._section = self._section, f"{self._section}{name}/"
        yield
        self._section = outer

    def value(self, value: Operand) -> Value:
        """A number or an array as a constant; a ``Value`` is returned as it is."""
        if isinstance(value, Value):
            return value
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if array.size > _SHARED:
            return self.constant(self._new_name("constant"), array)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._shared:
            self._shared[key] = self.constant(f"constant_{len(self._shared)}", array)
        return self._shared[key]

    def constant(self, name: str, array: np.ndarray) -> Value:
        """A constant by a name, such as a layer's weights; one that is there already is used again."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(array, name)
        return Value(self, name)

    def weight(self, layer: object, name: str, array: np.ndarray) -> Value:
        """A layer's array as a constant, float32, with the name that it has in a checkpoint."""
        return self.constant(f"{self._layer_names[id(layer)]}.{name}", np.asarray(array, np.float32))

    def input(self, name: str, dtype: Any, shape: Sequence[int | str], about: str = "") -> Value:
        """An input of a shape of numbers and of names, which stand for any number."""
        self._inputs.append(_describe(name, dtype, shape, about))
        return Value(self, name)

    def output(
        self, name: str, value: Value, dtype: Any, shape: Sequence[int | str], about: str = ""
    ) -> None:
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
        self._outputs.append(_describe(name, dtype, shape, about))

    def map(
        self, count: Operand, body: Callable[[Value], Sequence[tuple[Value, Any, Sequence[int]]]]
    ) -> list[Value]:
        """Results of ``body`` for each index below ``count``, each stacked along a new first axis.

        ``body`` returns values with their NumPy types and shapes; they may depend on any value outside of it.
        """
        outer, self._nodes = self._nodes, []
        index, going, stays = (self._new_name(kind) for kind in ("index", "going", "stays"))
        results = body(Value(self, index))
        self._nodes.append(helper.make_node("Identity", [going], [stays], name=stays))
        names = [self._new_name("result") for _ in results]
        for name, (value, *_) in zip(names, results, strict=True):
            self._nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
        outputs = [_describe(name, *kind) for name, (_, *kind) in zip(names, results, strict=True)]
        graph = helper.make_graph(
            self._nodes,
            self._new_name("body"),
            [_describe(index, np.int64, []), _describe(going, np.bool_, [])],
            [_describe(stays, np.bool_, []), *outputs],
        )
        self._nodes = outer
        stacked = self._add("Loop", [count, True], len(results), {"body": graph})
        return list(stacked) if isinstance(stacked, tuple) else [stacked]

    def model(self, about: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model, with texts on it by name."""
        graph = helper.make_graph(
            self._nodes, "detector", self._inputs, self._outputs, list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            producer_name="mrcnn_jax",
            doc_string=about,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        helper.set_model_props(model, metadata)
        return model


def _describe(name: str, dtype: Any, shape: Sequence[int | str], about: str = "") -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape, about)
