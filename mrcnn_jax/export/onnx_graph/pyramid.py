"""The feature pyramid network (FPN)."""

from collections.abc import Mapping

import numpy as np

from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv_norm
from mrcnn_jax.models.fpn import FPN

_TWICE = np.array([1, 1, 2, 2], np.float32)


def pyramid(graph: Graph, fpn: FPN, maps: Mapping[str, Value]) -> dict[str, Value]:
    """The levels "p2" to "p6" of the backbone's maps."""
    laterals = [conv_norm(graph, inner, x) for inner, x in zip(fpn.inner, maps.values(), strict=True)]
    merged = [laterals[-1]]
    for lateral in reversed(laterals[:-1]):
        both = lateral + _upsample(graph, merged[-1])
        merged.append(both / 2.0 if fpn.fuse == "avg" else both)
    levels = [conv_norm(graph, layer, x) for layer, x in zip(fpn.layer, reversed(merged), strict=True)]
    last = graph.MaxPool(levels[-1], kernel_shape=[1, 1], strides=[2, 2])  # every second cell
    return dict(zip(fpn.strides, [*levels, last], strict=True))


def _upsample(graph: Graph, x: Value) -> Value:
    """``x`` with every cell repeated twice along height and width, the form that runtimes know."""
    return graph.Resize(
        x, None, _TWICE, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
