"""Box arithmetic: areas, overlaps, and the encoding of boxes relative to anchors.

Shapes: N, M boxes. All results are float32, whatever the inputs' type.
"""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Shaped

# Limits a predicted width or height to 1000/16 of its anchor's: a 16 px anchor to a 1000 px box (Detectron2).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)

# Lower limit, in pixels, of the sides in the denominators and logarithms of the encoding.
MIN_SIDE = 1e-6


BoxWeights = tuple[float, float, float, float]  # of the deltas dx, dy, dw and dh


def area(boxes: Shaped[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Areas in square pixels; 0 for boxes whose corners are in the wrong order."""
    boxes = boxes.astype(jnp.float32)
    return _product(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0))


def pairwise_intersection(
    boxes_a: Shaped[Array, "n 4"], boxes_b: Shaped[Array, "m 4"]
) -> Float[Array, "n m"]:
    """Intersection areas of each box of ``boxes_a`` with each of ``boxes_b``, in square pixels."""
    a = boxes_a.astype(jnp.float32)[:, None]
    b = boxes_b.astype(jnp.float32)[None]
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])  # [N M 2]
    return _product(jnp.maximum(high - low, 0.0))


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


def encode_boxes(
    boxes: Shaped[Array, "*n 4"], anchors: Shaped[Array, "*n 4"], weights: BoxWeights
) -> Float[Array, "*n 4"]:
    """Deltas ``dx dy dw dh`` from each anchor to its box, multiplied by ``weights``.

    They are centre offsets in units of the anchor's sides, and logarithms of the ratios of sides (R-CNN;
    Faster R-CNN 3.1.2, equation 2). Sides below 1e-6 pixels count as 1e-6, so that degenerate ground truth
    gives finite deltas.
    """
    centre, side = _centre_and_side(boxes)
    anchor_centre, anchor_side = _centre_and_side(anchors)
    anchor_side = jnp.maximum(anchor_side, MIN_SIDE)
    shift_weights, scale_weights = jnp.split(jnp.asarray(weights, jnp.float32), 2)
    # Multiplied before divided, to round as in Detectron2 and torchvision.
    shift = shift_weights * (centre - anchor_centre) / anchor_side
    log_scale = scale_weights * jnp.log(jnp.maximum(side, MIN_SIDE) / anchor_side)
    return jnp.concatenate([shift, log_scale], axis=-1)


def decode_boxes(
    deltas: Shaped[Array, "*n 4"], anchors: Shaped[Array, "*n 4"], weights: BoxWeights
) -> Float[Array, "*n 4"]:
    """Boxes from ``anchors`` and weighted ``deltas``: the inverse of :func:`encode_boxes`.

    ``dw`` and ``dh`` are limited to log(1000/16), as in Detectron2 and torchvision, so that no box overflows.
    """
    centre, side = _centre_and_side(anchors)
    deltas = deltas.astype(jnp.float32) / jnp.asarray(weights, jnp.float32)
    centre = centre + deltas[..., :2] * side
    half = 0.5 * side * jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def clip_boxes(boxes: Shaped[Array, "*n 4"], image_size: Shaped[Array, "2"]) -> Float[Array, "*n 4"]:
    """Boxes clipped to an image of ``image_size`` (height, width)."""
    height, width = image_size.astype(jnp.float32)
    limit = jnp.stack([width, height, width, height])
    return jnp.clip(boxes.astype(jnp.float32), 0.0, limit)


def is_nonempty(boxes: Shaped[Array, "*n 4"], smallest_side: float = 0.0) -> Bool[Array, "*n"]:
    """Whether width and height are above 0 and at least ``smallest_side``; False for NaN."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.all((sides > 0) & (sides >= smallest_side), axis=-1)


def _product(sides: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """Width times height (both at least 0), rounded before anything is added to it, as in torch.

    The compiler may fuse a product and a sum into one operation with a single rounding, which would break
    ties between anchors that overlap an object equally. The maximum has no effect except to prevent that.
    """
    return jnp.maximum(sides[..., 0] * sides[..., 1], 0.0)


def _centre_and_side(boxes: Shaped[Array, "*n 4"]) -> tuple[Float[Array, "*n 2"], Float[Array, "*n 2"]]:
    boxes = boxes.astype(jnp.float32)
    side = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * side, side
