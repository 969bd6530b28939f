"""Box arithmetic: areas, overlaps, and the encoding of boxes relative to anchors.

Shapes: N, M boxes. All results are float32, whatever the inputs' type.

Coordinates are computed one by one: a TPU pads an array's last axis of 2 or 4 to 128.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Shaped

# Limits a predicted width or height to 1000/16 of its anchor's: a 16 px anchor to a 1000 px box (Detectron2).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)

# Lower limit, in pixels, of the sides in the denominators and logarithms of the encoding.
MIN_SIDE = 1e-6


BoxWeights = tuple[float, float, float, float]  # of the deltas dx, dy, dw and dh


def area(boxes: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Areas in square pixels; 0 for boxes whose corners are in the wrong order."""
    x1, y1, x2, y2 = _coordinates(boxes)
    return _product(x2 - x1, y2 - y1)


def pairwise_intersection(
    boxes_a: Shaped[Array, "n 4"], boxes_b: Shaped[Array, "m 4"]
) -> Float[Array, "n m"]:
    """Intersection areas of each box of ``boxes_a`` with each of ``boxes_b``, in square pixels."""
    ax1, ay1, ax2, ay2 = (a[:, None] for a in _coordinates(boxes_a))
    bx1, by1, bx2, by2 = _coordinates(boxes_b)
    width = jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1)  # [N 1] with [M]
    height = jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1)
    return _product(width, height)


def pairwise_iou(boxes_a: Shaped[Array, "n 4"], boxes_b: Shaped[Array, "m 4"]) -> Float[Array, "n m"]:
    """Intersection over union of each box of ``boxes_a`` with each of ``boxes_b``, 0 to 1.

    A box without area overlaps nothing: its IoU is 0, even with itself.
    """
    intersection = pairwise_intersection(boxes_a, boxes_b)
    union = area(boxes_a)[:, None] + area(boxes_b)[None] - intersection  # [N 1] + [1 M]
    return jnp.where(intersection > 0, intersection / jnp.where(union > 0, union, 1.0), 0.0)


def pairwise_ioa(boxes: Shaped[Array, "n 4"], regions: Shaped[Array, "m 4"]) -> Float[Array, "n m"]:
    """Fraction of each box's own area that lies inside each region, 0 to 1; 0 for a box without area.

    This is COCO's overlap with a crowd: it is 1 for a small box inside a large region.
    """
    intersection = pairwise_intersection(boxes, regions)
    own = area(boxes)[:, None]
    return jnp.where(intersection > 0, intersection / jnp.where(own > 0, own, 1.0), 0.0)


def generalized_iou(boxes: Shaped[Array, "*n 4"], others: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Generalised IoU of each box with the one in the same row, -1 to 1 (arXiv 1902.09630).

    It is their IoU, less the share of their common frame that neither covers. Detectron2's 1e-7 in both
    denominators gives 0 for two boxes without area in the same place.
    """
    ax1, ay1, ax2, ay2 = _coordinates(boxes)
    bx1, by1, bx2, by2 = _coordinates(others)
    intersection = _product(
        jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1)
    )
    union = area(boxes) + area(others) - intersection
    frame = _product(
        jnp.maximum(ax2, bx2) - jnp.minimum(ax1, bx1), jnp.maximum(ay2, by2) - jnp.minimum(ay1, by1)
    )
    return intersection / (union + 1e-7) - (frame - union) / (frame + 1e-7)


def distance_iou(boxes: Shaped[Array, "*n 4"], others: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Distance-IoU of each box with the one in the same row, -1 to 1 (arXiv 1911.08287, equation 7).

    It is their IoU, less the squared distance of their centres as a share of their frame's squared diagonal,
    with Detectron2's 1e-7 in both denominators.
    """
    ax1, ay1, ax2, ay2 = _coordinates(boxes)
    bx1, by1, bx2, by2 = _coordinates(others)
    distance = ((ax1 + ax2 - bx1 - bx2) ** 2 + (ay1 + ay2 - by1 - by2) ** 2) / 4
    width = jnp.maximum(ax2, bx2) - jnp.minimum(ax1, bx1)
    height = jnp.maximum(ay2, by2) - jnp.minimum(ay1, by1)
    return _iou(boxes, others) - distance / (width**2 + height**2 + 1e-7)


def _iou(boxes: Shaped[Array, "*n 4"], others: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """IoU of each box with the one in the same row, as Detectron2's losses have it."""
    ax1, ay1, ax2, ay2 = _coordinates(boxes)
    bx1, by1, bx2, by2 = _coordinates(others)
    intersection = _product(
        jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1)
    )
    return intersection / (area(boxes) + area(others) - intersection + 1e-7)


def complete_iou(boxes: Shaped[Array, "*n 4"], others: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Complete-IoU of each box with the one in the same row (arXiv 1911.08287, equation 10).

    It is their distance-IoU, less a penalty for different ratios of sides, whose weight has no gradient.
    """

    def angle(corners: Array) -> Array:
        x1, y1, x2, y2 = _coordinates(corners)
        return jnp.arctan((x2 - x1) / jnp.maximum(y2 - y1, MIN_SIDE))

    difference = 4 / math.pi**2 * (angle(others) - angle(boxes)) ** 2
    weight = lax.stop_gradient(difference / (1 - _iou(boxes, others) + difference + 1e-7))
    return distance_iou(boxes, others) - weight * difference


def encode_boxes(
    boxes: Shaped[Array, "*n 4"], anchors: Shaped[Array, "*n 4"], weights: BoxWeights
) -> Float[Array, "*n 4"]:
    """Deltas ``dx dy dw dh`` from each anchor to its box, multiplied by ``weights``.

    They are centre offsets in units of the anchor's sides, and logarithms of the ratios of sides (R-CNN;
    Faster R-CNN 3.1.2, equation 2). Sides below 1e-6 pixels count as 1e-6, so that degenerate ground truth
    gives finite deltas.
    """

    def encode(low: Array, high: Array, anchor_low: Array, anchor_high: Array, number: int) -> list[Array]:
        side, anchor_side = high - low, jnp.maximum(anchor_high - anchor_low, MIN_SIDE)
        offset = (low + 0.5 * side) - (anchor_low + 0.5 * (anchor_high - anchor_low))
        shift_weight, scale_weight = np.float32(weights[number]), np.float32(weights[number + 2])
        # Multiplied before divided, to round as in Detectron2 and torchvision.
        shift = shift_weight * offset / anchor_side
        return [shift, scale_weight * jnp.log(jnp.maximum(side, MIN_SIDE) / anchor_side)]

    x1, y1, x2, y2 = _coordinates(boxes)
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = _coordinates(anchors)
    dx, dw = encode(x1, x2, anchor_x1, anchor_x2, 0)
    dy, dh = encode(y1, y2, anchor_y1, anchor_y2, 1)
    return jnp.stack([dx, dy, dw, dh], axis=-1)


def decode_boxes(
    deltas: Shaped[Array, "*n 4"],
    anchors: Shaped[Array, "*n 4"],
    weights: BoxWeights,
    *,
    scale_limits: str = "above",
) -> Float[Array, "*n 4"]:
    """Boxes from ``anchors`` and weighted ``deltas``: the inverse of :func:`encode_boxes`.

    ``dw`` and ``dh`` are limited to log(1000/16), as in Detectron2 and torchvision, so that no box overflows;
    with ``scale_limits`` "both" they are also at least -log(1000/16), as in MMDetection.
    """

    def decode(shift: Array, log_scale: Array, low: Array, high: Array, number: int) -> list[Array]:
        side = high - low
        centre = low + 0.5 * side + shift / np.float32(weights[number]) * side
        log_scale = jnp.minimum(log_scale / np.float32(weights[number + 2]), MAX_LOG_SCALE)
        if scale_limits == "both":
            log_scale = jnp.maximum(log_scale, -MAX_LOG_SCALE)
        half = 0.5 * side * jnp.exp(log_scale)
        return [centre - half, centre + half]

    dx, dy, dw, dh = _coordinates(deltas)
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = _coordinates(anchors)
    x1, x2 = decode(dx, dw, anchor_x1, anchor_x2, 0)
    y1, y2 = decode(dy, dh, anchor_y1, anchor_y2, 1)
    return jnp.stack([x1, y1, x2, y2], axis=-1)


def clip_boxes(boxes: Shaped[Array, "*n 4"], image_size: Shaped[Array, "2"]) -> Float[Array, "*n 4"]:
    """Boxes clipped to an image of ``image_size`` (height, width)."""
    height, width = image_size.astype(jnp.float32)
    x1, y1, x2, y2 = _coordinates(boxes)
    clipped = [jnp.clip(x, 0.0, limit) for x, limit in ((x1, width), (y1, height), (x2, width), (y2, height))]
    return jnp.stack(clipped, axis=-1)


def is_nonempty(boxes: Shaped[Array, "*n 4"], smallest_side: float = 0.0) -> Bool[Array, "*n"]:
    """Whether width and height are above 0 and at least ``smallest_side``; False for NaN."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    width, height = x2 - x1, y2 - y1
    return (width > 0) & (height > 0) & (width >= smallest_side) & (height >= smallest_side)


def _product(width: Float[Array, "*n"], height: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Width times height, 0 if either is below 0, rounded before anything is added to it, as in torch.

    The compiler may fuse a product and a sum into one operation with a single rounding, which would break
    ties between anchors that overlap an object equally. The outer maximum has no other effect.
    """
    return jnp.maximum(jnp.maximum(width, 0.0) * jnp.maximum(height, 0.0), 0.0)


def _coordinates(boxes: Shaped[Array, "*n 4"]) -> list[Float[Array, "*n"]]:
    """The four columns of boxes or deltas, float32."""
    return [boxes[..., number].astype(jnp.float32) for number in range(4)]
