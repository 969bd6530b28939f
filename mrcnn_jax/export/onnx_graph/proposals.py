"""The region proposal network: its head on every level, and the best boxes of all levels."""

import numpy as np

from mrcnn_jax.config import TestConfig
from mrcnn_jax.export.onnx_graph import boxes
from mrcnn_jax.export.onnx_graph.arrays import as_float, best, columns, join, take, where_true
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv
from mrcnn_jax.export.onnx_graph.suppression import suppress
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.rpn import RPNHead
from mrcnn_jax.ops.anchors import half_sides

_LOWEST = float(np.finfo(np.float32).min)


def propose(
    graph: Graph,
    model: MaskRCNN,
    maps: dict[str, Value],
    *,
    image_size: list[Value],
    padded_size: Value,
    test: TestConfig,
) -> Value:
    """The proposals [P 4] of an image, at most ``test.rpn_post_nms``.

    ``image_size`` are its height and width, float32 [], and ``padded_size`` these with padding, int64 [2].
    """
    config = model.config
    assert model.rpn is not None
    per_level = len(config.anchor_sizes) // len(model.strides)
    of_levels = []
    for number, (level, stride) in enumerate(model.strides.items()):
        objectness, deltas = rpn_outputs(graph, model.rpn, maps[level])
        scores, index = best(graph, objectness, test.rpn_pre_nms)
        deltas = take(graph, index, deltas)
        grid = graph.Slice(graph.Shape(maps[level]), [2], [4])
        halves = half_sides(
            config.anchor_sizes[number * per_level :][:per_level],
            config.anchor_ratios,
            rounded=config.anchor_rounded,
        )
        pitch = padded_size // grid if config.anchor_stride == "image" else graph.value([stride, stride])
        anchors = chosen_anchors(graph, index, halves, grid=grid, pitch=pitch)
        corners = boxes.decode(
            graph, deltas, anchors, config.rpn_box_weights, scale_limits=config.box_scale_limits
        )
        corners = boxes.clip(graph, corners, *image_size)
        large = where_true(graph, boxes.is_nonempty(graph, corners, config.rpn_smallest_side))
        found, scores = take(graph, large, boxes.stack(graph, corners)), take(graph, large, scores)
        kept = suppress(
            graph,
            found,
            graph.Unsqueeze(scores, [0]),
            iou_threshold=test.rpn_nms_iou,
            most=test.rpn_post_nms,
            above=_LOWEST,
        )
        of_levels.append((take(graph, kept, found), take(graph, kept, scores)))
    found, scores = (join(graph, values) for values in zip(*of_levels, strict=True))
    _, index = best(graph, scores, test.rpn_post_nms)
    return take(graph, index, found)


def rpn_outputs(graph: Graph, head: RPNHead, x: Value) -> tuple[Value, Value]:
    """Objectness [A] and deltas [A 4] of the anchors of a level, by row, column and kind."""
    for layer in head.convs:
        x = graph.Relu(conv(graph, layer, x))
    objectness, deltas = (
        graph.Transpose(conv(graph, layer, x), perm=[0, 2, 3, 1])
        for layer in (head.cls_logits, head.bbox_pred)
    )
    return graph.Reshape(objectness, [-1]), graph.Reshape(deltas, [-1, 4])


def chosen_anchors(
    graph: Graph, index: Value, halves: np.ndarray, *, grid: Value, pitch: Value
) -> list[Value]:
    """The coordinates [N 1] of the anchors at ``index`` [N] of a level.

    ``halves`` [A 2] are half the heights and widths of a cell's anchors, ``grid`` the level's rows and
    columns and ``pitch`` the pixels from one to the next, both int64 [2].
    """
    kinds, width = len(halves), graph.Gather(grid, [1])
    index = graph.Unsqueeze(index, [1])
    cell = index // kinds
    row_pitch, column_pitch = graph.Split(pitch, [1, 1], axis=0, outputs=2)
    y, x = as_float(graph, cell // width * row_pitch), as_float(graph, cell % width * column_pitch)
    own = graph.Gather(halves, graph.Squeeze(index % kinds, [1]), axis=0)
    half_height, half_width = columns(graph, own, 2)
    return [x - half_width, y - half_height, x + half_width, y + half_height]
