"""Box arithmetic; ``ops/boxes.py`` has the definitions, and the order of the operations is the same here.

Coordinates are columns [N 1], of boxes x1 y1 x2 y2 in pixels.
"""

from mrcnn_jax.export.onnx_graph.arrays import columns
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.ops.boxes import MAX_LOG_SCALE, BoxWeights


def decode(
    graph: Graph, deltas: Value, corners: list[Value], weights: BoxWeights, *, scale_limits: str
) -> list[Value]:
    """The coordinates that ``deltas`` [N 4] make of boxes with the coordinates ``corners``."""

    def along_axis(shift: Value, log_scale: Value, low: Value, high: Value, number: int) -> list[Value]:
        side = high - low
        centre = low + 0.5 * side + shift / float(weights[number]) * side
        log_scale = graph.Min(log_scale / float(weights[number + 2]), MAX_LOG_SCALE)
        if scale_limits == "both":
            log_scale = graph.Max(log_scale, -MAX_LOG_SCALE)
        half = 0.5 * side * graph.Exp(log_scale)
        return [centre - half, centre + half]

    dx, dy, dw, dh = columns(graph, deltas, 4)
    (x1, x2), (y1, y2) = (
        along_axis(dx, dw, corners[0], corners[2], 0),
        along_axis(dy, dh, corners[1], corners[3], 1),
    )
    return [x1, y1, x2, y2]


def clip(graph: Graph, corners: list[Value], height: Value, width: Value) -> list[Value]:
    """The coordinates clipped to an image of these sides, float32 []."""
    limits = (width, height, width, height)
    return [graph.Clip(values, 0.0, limit) for values, limit in zip(corners, limits, strict=True)]


def sides(corners: list[Value]) -> tuple[Value, Value]:
    """Widths and heights [N 1]."""
    x1, y1, x2, y2 = corners
    return x2 - x1, y2 - y1


def is_nonempty(graph: Graph, corners: list[Value], smallest_side: float = 0.0) -> Value:
    """Whether width and height are above 0 and at least ``smallest_side``: bool [N]."""
    width, height = sides(corners)
    shorter = graph.Min(width, height)
    large = shorter > 0.0
    if smallest_side > 0:
        large = large & (shorter >= smallest_side)
    return graph.Reshape(large, [-1])


def stack(graph: Graph, corners: list[Value]) -> Value:
    """The boxes [N 4] of coordinates."""
    return graph.Concat(*corners, axis=1)
