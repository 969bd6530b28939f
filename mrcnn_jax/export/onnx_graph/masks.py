"""The mask head: the probabilities of each detection's own category over its box."""

from typing import Any

import numpy as np

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.export.onnx_graph.arrays import take
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv_stack
from mrcnn_jax.export.onnx_graph.regions import Maps, Regions
from mrcnn_jax.models.deconv import Deconv2x2
from mrcnn_jax.models.mask_head import MaskHead
from mrcnn_jax.models.mask_rcnn import MaskRCNN


def mask_probabilities(
    graph: Graph,
    model: MaskRCNN,
    maps: Maps,
    boxes: Value,
    labels: Value,
    *,
    config: ModelConfig,
) -> Value:
    """Mask probabilities [D M M] of ``boxes`` [D 4] for their ``labels`` [D]; the mean of several heads'."""
    regions = maps.pool(boxes, config.mask_pool_size)
    category = regions.sort(labels) - 1
    if config.mask_agnostic:
        category = category * 0  # the head's only one
    heads: list[Any] = [model.mask_head, *model.cascade_mask_heads]
    first, *further = (graph.Sigmoid(_logits(graph, head, regions, category)) for head in heads)
    for probabilities in further:
        first = first + probabilities
    return regions.restore(first / float(len(heads)) if further else first)


def _logits(graph: Graph, head: MaskHead, regions: Regions, category: Value) -> Value:
    """The logits [N M M] of regions [N C P P], each for its own category alone.

    As in ``models/mask_head.py``, the four cells that the deconvolution makes of each are put side by side
    last, when a single channel is left.
    """
    x = graph.Relu(_deconvolve(graph, head.conv5_mask, conv_stack(graph, head.convs, regions.features)))
    layer = head.mask_fcn_logits
    assert layer.bias is not None
    kernel, bias = np.asarray(layer.kernel[...])[0, 0].T, np.asarray(layer.bias[...])
    channels, cells = kernel.shape[1], regions.cells
    kernels, biases = (
        take(graph, category, graph.weight(layer, name, array))
        for name, array in (("kernel", kernel), ("bias", bias))
    )
    x = graph.Reshape(x, [0, 4, channels, cells**2])
    logits = graph.MatMul(graph.Reshape(kernels, [0, 1, 1, channels]), x)  # [N 4 1 P*P]
    logits = graph.Reshape(logits, [0, 2, 2, cells, cells]) + graph.Unsqueeze(biases, [1, 2, 3, 4])
    return graph.Reshape(graph.Transpose(logits, perm=[0, 3, 1, 4, 2]), [0, 2 * cells, 2 * cells])


def _deconvolve(graph: Graph, layer: Deconv2x2, x: Value) -> Value:
    """The outputs of each cell [N 4*D P P], one after the other: a 1x1 convolution."""
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    kernel = kernel.transpose(0, 1, 3, 2).reshape(4 * len(bias), -1, 1, 1)
    return graph.Conv(x, graph.weight(layer, "kernel", kernel), graph.weight(layer, "bias", np.tile(bias, 4)))
