"""Non-maximum suppression of boxes that are sorted by score."""

from mrcnn_jax.export.onnx_graph.arrays import ascending
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.ops.nms.plain import float32_not_above


def suppress(
    graph: Graph, boxes: Value, scores: Value, *, iou_threshold: float, most: int, above: float
) -> Value:
    """The indices of the boxes that are kept, ascending.

    Args:
        boxes: [N 4], the best first.
        scores: [C N] of each of C classes, within which boxes suppress each other; a box belongs to the
            classes in which its score is higher than ``above``.
        most: how many may be kept of a class.
    """
    chosen = graph.NonMaxSuppression(
        graph.Unsqueeze(boxes, [0]),
        graph.Unsqueeze(scores, [0]),
        [most],
        float32_not_above(iou_threshold).reshape(1),
        [float(above)],
    )
    # Runtimes return them in different orders.
    return ascending(graph, graph.Gather(chosen, 2, axis=1))[0]
