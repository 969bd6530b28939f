"""The box head, those of a cascade, and the best boxes of all categories."""

import numpy as np

from mrcnn_jax.config import Config, ModelConfig, TestConfig
from mrcnn_jax.export.onnx_graph import boxes
from mrcnn_jax.export.onnx_graph.arrays import best, columns, first, take, where_true
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.export.onnx_graph.layers import conv_stack, linear
from mrcnn_jax.export.onnx_graph.regions import Maps, Regions
from mrcnn_jax.export.onnx_graph.suppression import suppress
from mrcnn_jax.models.box_head import BoxHead
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.ops.boxes import BoxWeights

_END = np.iinfo(np.int64).max  # of a slice that goes to the end


def detect_boxes(
    graph: Graph,
    model: MaskRCNN,
    maps: Maps,
    proposals: Value,
    *,
    image_size: list[Value],
    config: Config,
) -> tuple[Value, Value, Value]:
    """Boxes [D 4], scores [D] and labels [D] (int64, from 1) of an image, best first.

    ``image_size`` is the height and width of the image, float32 [].
    """
    settings = config.model
    assert model.box_head is not None
    weights = settings.box_weights
    logits, deltas = box_outputs(graph, model.box_head, maps.pool(proposals, settings.box_pool_size))
    all_logits = [logits]
    for head, next_weights in zip(model.cascade_heads, settings.box_cascade, strict=True):
        corners = decoded(graph, proposals, deltas, weights, image_size=image_size, settings=settings)
        proposals, weights = boxes.stack(graph, corners), next_weights
        logits, deltas = box_outputs(graph, head, maps.pool(proposals, settings.box_pool_size))
        all_logits.append(logits)
    return select_detections(
        graph,
        proposals,
        mean_scores(graph, all_logits, config),
        deltas,
        image_size=image_size,
        num_classes=model.box_head.cls_score.out_features - 1,
        box_weights=weights,
        config=config,
    )


def box_outputs(graph: Graph, head: BoxHead, regions: Regions) -> tuple[Value, Value]:
    """Class logits [P L] and box deltas [P 4 K] of regions, in the order of their boxes."""
    x = conv_stack(graph, head.convs, regions.features)
    # A map is flattened cell by cell, as the first layer's weights have it.
    x = graph.Flatten(graph.Transpose(x, perm=[0, 2, 3, 1]) if head.fcs else graph.GlobalAveragePool(x))
    for fc in head.fcs:
        x = graph.Relu(linear(graph, fc, x))
    logits, deltas = linear(graph, head.cls_score, x), linear(graph, head.bbox_pred, x)
    return regions.restore(logits), regions.restore(deltas)


def select_detections(
    graph: Graph,
    proposals: Value,
    scores: Value,
    deltas: Value,
    *,
    image_size: list[Value],
    num_classes: int,
    box_weights: BoxWeights,
    config: Config,
) -> tuple[Value, Value, Value]:
    """As ``inference.predict.select_detections``, from scores [P C]: boxes, scores and labels."""
    test, settings = config.test, config.model
    scores = graph.Reshape(scores, [-1])
    index = where_true(graph, scores > test.score_threshold)
    scores, place = best(graph, take(graph, index, scores), test.candidates)
    pair = take(graph, place, index)
    proposal, category = pair // num_classes, pair % num_classes
    own_deltas = take(graph, proposal if settings.box_agnostic else pair, graph.Reshape(deltas, [-1, 4]))
    corners = decoded(
        graph,
        take(graph, proposal, proposals),
        own_deltas,
        box_weights,
        image_size=image_size,
        settings=settings,
    )
    found = [boxes.stack(graph, corners), scores, category]
    if test.box_smallest_side > 0:
        large = where_true(graph, boxes.is_nonempty(graph, corners, test.box_smallest_side))
        found = [take(graph, large, values) for values in found]
    kept = first(graph, _suppress_in_categories(graph, found, num_classes, test), [test.detections])
    found = [take(graph, kept, values) for values in found]
    valid = where_true(graph, boxes.is_nonempty(graph, columns(graph, found[0], 4)))
    found_boxes, scores, category = (take(graph, valid, values) for values in found)
    return found_boxes, scores, category + 1


def decoded(
    graph: Graph,
    regions: Value,
    deltas: Value,
    weights: BoxWeights,
    *,
    image_size: list[Value],
    settings: ModelConfig,
) -> list[Value]:
    """The coordinates [N 1] of what ``deltas`` [N 4] make of ``regions`` [N 4], within the image."""
    corners = boxes.decode(
        graph, deltas, columns(graph, regions, 4), weights, scale_limits=settings.box_scale_limits
    )
    return boxes.clip(graph, corners, *image_size)


def _suppress_in_categories(graph: Graph, found: list[Value], num_classes: int, test: TestConfig) -> Value:
    """The indices of the boxes that are kept of ``found``: boxes, scores and categories, best first."""
    all_boxes, scores, category = found
    is_own = graph.Equal(np.arange(num_classes)[:, None], graph.Unsqueeze(category, [0]))
    scores = graph.Where(is_own, graph.Unsqueeze(scores, [0]), 0.0)  # [C N]
    return suppress(graph, all_boxes, scores, iou_threshold=test.nms_iou, most=test.detections, above=0.0)


def mean_scores(graph: Graph, all_logits: list[Value], config: Config) -> Value:
    """Scores of the categories [P C]; those of a cascade are means."""

    def to_scores(logits: Value) -> Value:
        sigmoid = config.model.box_scores == "sigmoid"
        scores = graph.Sigmoid(logits) if sigmoid else graph.Softmax(logits, axis=1)
        return graph.Slice(scores, [1], [int(_END)], [1])

    def mean(values: list[Value]) -> Value:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total / float(len(values)) if len(values) > 1 else total

    if config.test.cascade_score == "logit":
        return to_scores(mean(all_logits))
    return mean([to_scores(logits) for logits in all_logits])
