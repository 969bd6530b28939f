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
    """Anchors of a map with ``grid`` (rows, columns) of cells, in pixels.

    Around the corner of each cell, ``(x, y)`` times ``stride`` (pixels from row to row and from column to
    column), there is one of area ``size**2`` for each of ``sizes`` and each of ``ratios`` (height / width).
    Rows are in the order y, x, size, ratio: that of a head's output ``[H W A]`` reshaped to ``[H*W*A]``. As
    D2 with offset 0. With ``rounded`` the corners of the anchors at the origin are rounded to whole pixels,
    halves to even, as torchvision does. They reach over the edges of the image.
    """
    half_sides = _half_sides(sizes, ratios)
    if rounded:
        half_sides = np.round(half_sides)
    shape = (*grid, len(half_sides))
    # Iota and a table of a few numbers: XLA then computes the anchors, where concrete arrays of 268k rows
    # would be folded into the program.
    y = (lax.broadcasted_iota(jnp.int32, shape, 0) * stride[0]).astype(jnp.float32)
    x = (lax.broadcasted_iota(jnp.int32, shape, 1) * stride[1]).astype(jnp.float32)
    half_height, half_width = jnp.asarray(half_sides.T)
    boxes = jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return boxes.reshape(-1, 4)


def _half_sides(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> np.ndarray:
    """Half the height and half the width of each size and ratio, ``[A 2]`` float32."""
    size, root = np.array(sizes)[:, None], np.sqrt(np.array(ratios))
    return np.stack([size * root, size / root], axis=-1).reshape(-1, 2).astype(np.float32) / 2
