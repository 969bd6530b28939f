"""The keypoint head, and where its heatmaps are highest; ``ops/keypoints.py`` has the definitions.

Shapes: D detections, K keypoints, M x M cells of a heatmap, W x H pixels of a box.
"""

import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.export.onnx_graph.arrays import as_float, as_int, columns, length
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv_stack
from mrcnn_jax.export.onnx_graph.regions import Maps
from mrcnn_jax.models.mask_rcnn import MaskRCNN

_TWICE = np.array([1, 1, 2, 2], np.float32)


def keypoints(
    graph: Graph,
    model: MaskRCNN,
    maps: Maps,
    boxes: Value,
    *,
    config: Config,
) -> Value:
    """``x y score`` of each keypoint of ``boxes`` [D 4], in pixels: [D K 3]."""
    head = model.keypoint_head
    assert head is not None
    regions = maps.pool(boxes, config.model.keypoint_pool_size)
    layer = head.kps_score_lowres
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    logits = graph.ConvTranspose(
        conv_stack(graph, head.convs, regions.features),
        graph.weight(layer, "kernel", kernel.transpose(2, 3, 0, 1)),
        graph.weight(layer, "bias", bias),
        kernel_shape=[4, 4],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
    )
    logits = graph.Resize(
        regions.restore(logits), None, _TWICE, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    score = config.test.keypoint_score
    return decode(graph, logits, boxes, points=len(bias), cells=4 * regions.cells, score=score)


def decode(graph: Graph, logits: Value, boxes: Value, *, points: int, cells: int, score: str) -> Value:
    """As ``decode_keypoints``, from logits [D K M M] of K = ``points`` and M = ``cells``: [D K 3]."""
    x1, y1, x2, y2 = columns(graph, boxes, 4)
    width, height = graph.Max(x2 - x1, 1.0), graph.Max(y2 - y1, 1.0)  # [D 1]
    columns_of, rows_of = as_int(graph, graph.Ceil(width)), as_int(graph, graph.Ceil(height))

    def find_peaks(number: Value) -> list[tuple[Value, type, list[int]]]:
        """The highest value of each of a detection's heatmaps, resized to its box, and its pixel."""
        across, down = (
            _cubic_weights(graph, graph.Gather(count, number, axis=0), cells)
            for count in (columns_of, rows_of)
        )
        strip = graph.MatMul(graph.Gather(logits, number, axis=0), graph.Transpose(across, perm=[1, 0]))
        pixels = graph.Reshape(graph.MatMul(down, strip), [points, -1])  # [K H*W]
        return [
            (graph.ReduceMax(pixels, axes=[1], keepdims=0), np.float32, [points]),
            (graph.ArgMax(pixels, axis=1, keepdims=0), np.int64, [points]),
        ]

    peak, pixel = graph.map(graph.Squeeze(length(graph, boxes), [0]), find_peaks)
    column, row = as_float(graph, pixel % columns_of), as_float(graph, pixel // columns_of)
    x = x1 + (column + 0.5) * (width / graph.Ceil(width))
    y = y1 + (row + 0.5) * (height / graph.Ceil(height))
    if score == "probability":
        above = graph.Exp(logits - graph.Unsqueeze(peak, [2, 3]))
        peak = 1.0 / graph.ReduceSum(above, [2, 3], keepdims=0)
    return graph.Concat(*(graph.Unsqueeze(values, [2]) for values in (x, y, peak)), axis=2)


def _cubic_weights(graph: Graph, count: Value, cells: int) -> Value:
    """The weight of each of ``cells`` at each of ``count`` (int64 [1]) pixels: [P cells]."""
    a = -0.75  # the slope of torch's kernel
    pixel = as_float(graph, graph.Range(0, graph.Squeeze(count, [0]), 1))
    position = (pixel + 0.5) * (float(cells) / as_float(graph, count)) - 0.5
    low = graph.Floor(position)
    after = position - low
    before = 1.0 - after
    near = [((a + 2) * d - (a + 3)) * d * d + 1.0 for d in (after, before)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (after + 1.0, before + 1.0)]
    parts = []
    for tap, weight in zip(range(-1, 3), (far[0], near[0], near[1], far[1]), strict=True):
        cell = graph.Unsqueeze(graph.Clip(low + float(tap), 0.0, float(cells - 1)), [1])
        is_own = as_float(graph, graph.Equal(cell, np.arange(cells, dtype=np.float32)))
        parts.append(graph.Unsqueeze(weight, [1]) * is_own)
    return graph.Sum(*parts)
