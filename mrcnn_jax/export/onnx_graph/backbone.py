"""From pixels to the backbone's maps: ResNet, ResNeXt and RegNet."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv, norm
from mrcnn_jax.models.regnet import Block, RegNet, SqueezeExcitation
from mrcnn_jax.models.resnet import BasicBlock, Bottleneck


def normalize(graph: Graph, image: Value, config: ModelConfig) -> Value:
    """An image [H W C] as read, normalised and padded with zeros as the model expects: [1 C H2 W2]."""
    pixels = graph.Transpose(image, perm=[2, 0, 1])
    if config.pixel_order == "bgr":
        channels = np.arange(len(config.pixel_mean))
        channels[[0, 2]] = 2, 0
        pixels = graph.Gather(pixels, channels, axis=0)
    mean, deviation = (
        np.array(values, np.float32)[:, None, None] for values in (config.pixel_mean, config.pixel_std)
    )
    pixels = graph.Unsqueeze((pixels - mean) / deviation, [0])
    multiple = config.padding_multiple
    if multiple == 1:
        return pixels
    size = graph.Slice(graph.Shape(image), [0], [2])
    missing = (size + (multiple - 1)) // multiple * multiple - size
    return graph.Pad(pixels, graph.Concat([0, 0, 0, 0, 0, 0], missing, axis=0))


def backbone(graph: Graph, network: Any, image: Value) -> dict[str, Value]:
    """The maps "c2" to "c5" of a normalised image that a ResNet or RegNet makes, those that it has."""
    if isinstance(network, RegNet):
        x, stage_name = graph.Relu(_apply(graph, (network.stem, network.stem_norm), image)), "s"
    else:
        x, stage_name = graph.Relu(_apply(graph, (network.conv1, network.bn1), image)), "layer"
        x = graph.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    maps = {}
    for number, name in enumerate(network.strides, start=1):
        x = maps[name] = stage(graph, getattr(network, f"{stage_name}{number}"), x)
    return maps


def stage(graph: Graph, blocks: Sequence[Any], x: Value) -> Value:
    """The output of a stage's blocks, applied to ``x`` in turn."""
    forms: dict[type, Callable[[Graph, Any, Value], Value]] = {
        BasicBlock: _basic,
        Bottleneck: _bottleneck,
        Block: _regnet_block,
    }
    for block in blocks:
        shortcut = _apply(graph, block.downsample, x) if block.downsample else x
        x = graph.Relu(forms[type(block)](graph, block, x) + shortcut)
    return x


def _apply(graph: Graph, conv_and_norm: Sequence[Any], x: Value) -> Value:
    layer, its_norm = conv_and_norm
    return norm(graph, its_norm, conv(graph, layer, x))


def _basic(graph: Graph, block: BasicBlock, x: Value) -> Value:
    x = graph.Relu(_apply(graph, (block.conv1, block.bn1), x))
    return _apply(graph, (block.conv2, block.bn2), x)


def _bottleneck(graph: Graph, block: Bottleneck, x: Value) -> Value:
    x = graph.Relu(_apply(graph, (block.conv1, block.bn1), x))
    x = graph.Relu(_apply(graph, (block.conv2, block.bn2), x))
    return _apply(graph, (block.conv3, block.bn3), x)


def _regnet_block(graph: Graph, block: Block, x: Value) -> Value:
    x = graph.Relu(_apply(graph, (block.a, block.a_norm), x))
    x = graph.Relu(_apply(graph, (block.b, block.b_norm), x))
    if block.se is not None:
        x = _squeeze_and_excite(graph, block.se, x)
    return _apply(graph, (block.c, block.c_norm), x)


def _squeeze_and_excite(graph: Graph, layer: SqueezeExcitation, x: Value) -> Value:
    means = graph.GlobalAveragePool(x)
    factors = conv(graph, layer.expand, graph.Relu(conv(graph, layer.reduce, means)))
    return x * graph.Sigmoid(factors)
