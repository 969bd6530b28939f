"""The model's layers as ONNX nodes. Maps are [N C H W] here, as ONNX has them, and kernels are transposed.

Each function takes the layer of ``mrcnn_jax/models`` whose weights it writes. Batch norms must have been
folded into convolutions.
"""

from typing import Any

import numpy as np
from flax import nnx

from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.models.convs import Conv, ConvNorm, ConvStack
from mrcnn_jax.models.folding import Folded
from mrcnn_jax.models.norm import GroupNorm


def layer_names(model: nnx.Module) -> dict[int, str]:
    """The dotted path of every layer of a model, by its ``id``, for ``Graph``."""
    return {id(layer): ".".join(map(str, path)) for path, layer in nnx.iter_modules(model)}


def conv(graph: Graph, layer: Conv, x: Value) -> Value:
    """The convolution, padded by half the extent of its kernel."""
    kernel = np.asarray(layer.kernel[...])
    stride, dilation, groups = (layer.options[name] for name in ("stride", "dilation", "groups"))
    size = len(kernel)
    inputs = [x, graph.weight(layer, "kernel", kernel.transpose(3, 2, 0, 1))]
    if layer.bias is not None:
        inputs.append(graph.weight(layer, "bias", np.asarray(layer.bias[...])))
    return graph.Conv(
        *inputs,
        kernel_shape=[size, size],
        strides=[stride, stride],
        dilations=[dilation, dilation],
        pads=[dilation * (size - 1) // 2] * 4,
        group=groups,
    )


def norm(graph: Graph, layer: Any, x: Value) -> Value:
    """A group norm; a folded batch norm, or none, leaves ``x`` as it is. Raises ValueError for others."""
    if layer is None or isinstance(layer, Folded):
        return x
    if not isinstance(layer, GroupNorm):
        raise ValueError(f"a norm of the kind {type(layer).__name__} cannot be exported as ONNX")
    scale, bias = (np.reshape(getattr(layer, name)[...], (-1, 1, 1)) for name in ("scale", "bias"))
    groups = layer.num_groups
    # With all extents given, as none could be found by -1 where there are no regions.
    by_group = graph.Concat([0, groups, len(scale) // groups], graph.Slice(graph.Shape(x), [2], [4]), axis=0)
    rows = graph.InstanceNormalization(
        graph.Reshape(x, by_group),
        np.ones(groups, np.float32),
        np.zeros(groups, np.float32),
        epsilon=layer.epsilon,
    )
    scaled = graph.Reshape(rows, graph.Shape(x)) * graph.weight(layer, "scale", scale)
    return scaled + graph.weight(layer, "bias", bias)


def conv_norm(graph: Graph, layer: ConvNorm, x: Value) -> Value:
    return norm(graph, layer.norm, conv(graph, layer.conv, x))


def conv_stack(graph: Graph, stack: ConvStack, x: Value) -> Value:
    for layer in stack.layers:
        x = graph.Relu(conv_norm(graph, layer, x))
    return x


def linear(graph: Graph, layer: nnx.Linear, x: Value) -> Value:
    arrays = ((name, np.asarray(getattr(layer, name)[...])) for name in ("kernel", "bias"))
    return graph.Gemm(x, *(graph.weight(layer, name, array) for name, array in arrays))
