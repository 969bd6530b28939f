"""Anchors: the reference boxes of the region proposal network."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int


def make_anchors(
    grid: tuple[int, ...],
    stride: Int[Array, "2"],
    *,
    sizes: tuple[float, ...],
    ratios: tuple[float, ...],
    rounded: bool = False,
) -> Float[Array, "a 4"]:
    """Anchors of a feature map with a ``grid`` of (rows, columns) cells, in pixels.

    Each cell's corner, ``(x, y)`` times ``stride`` (pixels from row to row and from column to column), is the
    centre of one anchor of area ``size**2`` for each of ``sizes`` and each of ``ratios`` (height / width).
    Anchors are ordered by y, x, size, ratio, like a head's output ``[H W A]`` reshaped to ``[H*W*A]``. As in
    Detectron2 with offset 0. With ``rounded``, the corners of the anchors at the origin are rounded to whole
    pixels, halves to even, as in torchvision. Anchors may extend beyond the image.
    """
    half_sides = _half_sides(sizes, ratios)
    if rounded:
        half_sides = np.round(half_sides)
    shape = (*grid, len(half_sides))
    # Iotas and a small table, so that XLA computes the anchors; concrete arrays of 268k rows would become
    # constants of the program.
    y = (lax.broadcasted_iota(jnp.int32, shape, 0) * stride[0]).astype(jnp.float32)
    x = (lax.broadcasted_iota(jnp.int32, shape, 1) * stride[1]).astype(jnp.float32)
    half_height, half_width = jnp.asarray(half_sides.T)
    boxes = jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return boxes.reshape(-1, 4)


def _half_sides(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> np.ndarray:
    """Half the height and half the width of each size and ratio, ``[A 2]`` float32."""
    size, root = np.array(sizes)[:, None], np.sqrt(np.array(ratios))
    return np.stack([size * root, size / root], axis=-1).reshape(-1, 2).astype(np.float32) / 2
