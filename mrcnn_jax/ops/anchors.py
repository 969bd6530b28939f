"""Anchors: the reference boxes of the region proposal network, one size per pyramid level."""

import math

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def make_anchors(
    image_shape: tuple[int, int],
    *,
    sizes: tuple[float, ...],
    ratios: tuple[float, ...],
    strides: tuple[int, ...],
) -> dict[str, Float[Array, "a 4"]]:
    """Anchors of an image of ``image_shape`` (height, width), in pixels, per level ``"p2"``, ``"p3"``, ...

    Level ``log2(stride)`` has ``ceil(height/stride) * ceil(width/stride)`` cells, with one anchor of area
    ``size**2`` for each of ``ratios`` (height / width) around the cell's corner ``(x * stride, y * stride)``.
    Rows are in the order y, x, ratio: that of a head's output ``[H W A]`` reshaped to ``[H*W*A]``. As D2 with
    offset 0: unlike in torchvision, corners are not rounded and strides are powers of two. Reaches over the
    edges of the image.

    Raises ``ValueError`` if ``sizes`` and ``strides`` differ in length or a stride is not a power of two.
    """
    if len(sizes) != len(strides):
        raise ValueError(f"sizes {sizes} and strides {strides} must have one entry per level each")
    anchors = {}
    for size, stride in zip(sizes, strides, strict=True):
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"stride {stride} (of strides {strides}) must be a power of two")
        grid = math.ceil(image_shape[0] / stride), math.ceil(image_shape[1] / stride)
        anchors[f"p{stride.bit_length() - 1}"] = _level_anchors(grid, size, ratios, stride)
    return anchors


def _level_anchors(
    grid: tuple[int, int], size: float, ratios: tuple[float, ...], stride: int
) -> Float[Array, "a 4"]:
    shape = (*grid, len(ratios))
    # Iota and a table of a few numbers: XLA then computes the anchors, where concrete arrays of 268k rows
    # would be folded into the program.
    y = lax.broadcasted_iota(jnp.float32, shape, 0) * stride
    x = lax.broadcasted_iota(jnp.float32, shape, 1) * stride
    half_width = jnp.asarray([0.5 * size / math.sqrt(ratio) for ratio in ratios], jnp.float32)
    half_height = jnp.asarray([0.5 * size * math.sqrt(ratio) for ratio in ratios], jnp.float32)
    boxes = jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return boxes.reshape(-1, 4)
