"""The writer of graphs, run in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest

from mrcnn_jax.export.onnx_graph import arrays
from mrcnn_jax.export.onnx_graph.graph import Graph


def run(graph: Graph, **inputs: np.ndarray) -> list[np.ndarray]:
    model = graph.model("a test", {})
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_arithmetic_by_hand():
    graph = Graph()
    x = graph.input("x", np.float32, ["n"])
    graph.output("y", (1.0 - x) * 2.0 + x / 4.0, np.float32, ["n"])
    number = arrays.length(graph, x)
    graph.output("z", (number + 3) // 2 % 3, np.int64, [1])
    graph.output("large", (x > 1.0) & (x >= 4.0), np.bool_, ["n"])
    y, z, large = run(graph, x=np.array([0, 4, 2], np.float32))
    assert y.tolist() == [2, -5, -1.5] and z.tolist() == [0] and large.tolist() == [False, True, False]


def test_indexing_by_hand():
    graph = Graph()
    x = graph.input("x", np.float32, ["n"])
    values, index = arrays.best(graph, x, 3)
    graph.output("values", values, np.float32, ["k"])
    graph.output("index", index, np.int64, ["k"])
    graph.output("rows", arrays.where_true(graph, x > 1.0), np.int64, ["m"])
    numbers, place = arrays.ascending(graph, index)
    graph.output("numbers", numbers, np.int64, ["k"])
    graph.output("place", place, np.int64, ["k"])
    graph.output("first", arrays.first(graph, x, [2]), np.float32, ["l"])
    results = run(graph, x=np.array([1, 5, 2, 5], np.float32))
    assert [values.tolist() for values in results] == [
        [5, 5, 2],
        [1, 3, 2],
        [1, 2, 3],
        [1, 2, 3],
        [0, 2, 1],
        [1, 5],
    ]
    results = run(graph, x=np.array([1], np.float32))
    assert [values.tolist() for values in results] == [[1], [0], [], [0], [0], [1]]


@pytest.mark.parametrize("count", [3, 0])
def test_map_stacks_rows_of_different_lengths_reduced(count):
    graph = Graph()
    x = graph.input("x", np.float32, ["n"])

    def body(number):
        scaled = graph.Gather(x, number) * arrays.as_float(graph, graph.Range(0, number + 1, 1))
        return [(graph.ReduceSum(scaled, [0], keepdims=1), np.float32, [1])]

    (sums,) = graph.map(graph.Squeeze(arrays.length(graph, x), [0]), body)
    graph.output("sums", sums, np.float32, ["n", 1])
    (found,) = run(graph, x=np.array([7, 2, 10], np.float32)[:count])
    assert found.tolist() == [[0], [2], [30]][:count]


def test_constants_are_shared_and_weights_are_named():
    layer = object()
    graph = Graph({id(layer): "backbone.conv1"})
    x = graph.input("x", np.float32, [2])
    for _ in range(3):
        x = x * 2.0 + graph.weight(layer, "bias", np.ones(2))
    with graph.section("last"):
        x = x * 2.0
    graph.output("y", x, np.float32, [2])
    written = graph.model("a test", {"key": "value"}).graph
    assert [constant.name for constant in written.initializer] == ["constant_0", "backbone.conv1.bias"]
    assert written.node[-2].name.startswith("last/Mul_")
    with pytest.raises(AttributeError, match="there is no ONNX operator 'relu'"):
        graph.relu(x)
