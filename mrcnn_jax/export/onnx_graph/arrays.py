"""Indexing and shapes, as NumPy has them, in terms of ONNX operators."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from mrcnn_jax.export.onnx_graph.graph import Graph, Operand, Value


def length(graph: Graph, x: Value, axis: int = 0) -> Value:
    """The extent of ``x`` along an axis, int64 [1]."""
    return graph.Gather(graph.Shape(x), [axis], axis=0)


def where_true(graph: Graph, mask: Value) -> Value:
    """The indices at which ``mask`` [N] is true, ascending, int64."""
    return graph.Reshape(graph.NonZero(mask), [-1])


def take(graph: Graph, index: Value, values: Value) -> Value:
    """The rows of ``values`` at ``index`` [N]."""
    return graph.Gather(values, index, axis=0)


def first(graph: Graph, x: Value, count: Operand) -> Value:
    """The first ``count`` (int64 [1]) rows of ``x``, or all if there are fewer."""
    return graph.Slice(x, [0], count, [0])


def best(graph: Graph, scores: Value, most: int) -> tuple[Value, Value]:
    """The ``most`` highest of ``scores`` [N], or all if there are fewer, and their indices.

    The highest come first, and of equal scores those of the lower index.
    """
    count = graph.Min(length(graph, scores), [most])
    values, index = graph.TopK(scores, count, axis=0, largest=1, sorted=1, outputs=2)
    return values, index


def ascending(graph: Graph, index: Value) -> tuple[Value, Value]:
    """``index`` [N] sorted, and the place of each of the sorted in it."""
    values, place = graph.TopK(index, length(graph, index), axis=0, largest=0, sorted=1, outputs=2)
    return values, place


def columns(graph: Graph, x: Value, count: int) -> list[Value]:
    """The ``count`` columns of ``x`` [N count], each [N 1]."""
    return list(graph.Split(x, np.ones(count, np.int64), axis=1, outputs=count))


def as_float(graph: Graph, x: Value) -> Value:
    return graph.Cast(x, to=TensorProto.FLOAT)


def as_int(graph: Graph, x: Value) -> Value:
    """``x``, of whole numbers, as int64."""
    return graph.Cast(x, to=TensorProto.INT64)


def join(graph: Graph, values: Sequence[Value], axis: int = 0) -> Value:
    return values[0] if len(values) == 1 else graph.Concat(*values, axis=axis)
