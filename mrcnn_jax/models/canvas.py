"""What lies beyond an image on its canvas, kept out of what is computed inside it.

The references pad an image by itself to a multiple of 32 pixels (or not at all), and every convolution sees
zeros beyond that. A canvas may be larger, and convolutions carry values into its rest: biases, and what
reaches over the edge. So each map is cut to zero there before a convolution or pooling that looks around, and
norms count none of it. The canvas then makes no difference to the result.

Shapes: B images, H x W cells of a map, C channels. ``inside`` is a mask ``[B H W 1]``, or None where
everything is inside.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

Inside = Bool[Array, "b _ _ 1"] | None


def padded_sizes(image_sizes: Int[Array, "*b 2"], multiple: int) -> Int[Array, "*b 2"]:
    """Height and width of images, rounded up to a multiple."""
    return -(-image_sizes // multiple) * multiple


def cells(sizes: Int[Array, "*b 2"], stride: int) -> Int[Array, "*b 2"]:
    """Rows and columns of a map of ``stride`` that images of these sizes have, each started one counted."""
    return -(-sizes // stride)


def inside(shape: tuple[int, ...], sizes: Int[Array, "b 2"]) -> Bool[Array, "b h w 1"]:
    """Which cells of a map of ``shape`` (height, width) lie within the first ``sizes`` rows and columns."""
    rows = jnp.arange(shape[0]) < sizes[:, :1]  # [H] < [B 1]
    columns = jnp.arange(shape[1]) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def subsample(inside: Inside, stride: int) -> Inside:
    """The mask of a map with every ``stride``-th row and column."""
    return inside if inside is None else inside[:, ::stride, ::stride]


def cut(x: Float[Array, "b h w c"], inside: Inside) -> Float[Array, "b h w c"]:
    """``x``, zero beyond the images."""
    return x if inside is None else jnp.where(inside, x, 0)
