"""Masks that keep the padding around an image on its canvas (its padded size) from affecting any result.

The reference implementations pad each image separately to a multiple of 32 pixels (or not at all), and every
convolution sees zeros beyond that. A canvas may be larger, and nonzero values would spread into the rest of
it, from biases and from convolutions whose window crosses the image edge. So each map is masked out there
before any convolution or pooling that reads neighbouring cells, and norms ignore it.

Shapes: B images, H x W cells of a map, C channels.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mrcnn_jax.runtime.barriers import cpu_barrier

# True for cells of a map that belong to an image; None if all do.
Mask = Bool[Array, "b _ _ 1"] | None


def padded_sizes(image_sizes: Int[Array, "*b 2"], multiple: int) -> Int[Array, "*b 2"]:
    """Heights and widths rounded up to a multiple of ``multiple`` pixels."""
    return -(-image_sizes // multiple) * multiple


def cells(sizes: Int[Array, "*b 2"], stride: int) -> Int[Array, "*b 2"]:
    """Rows and columns that images of these sizes occupy on a map of ``stride``, rounded up."""
    return -(-sizes // stride)


def image_mask(shape: tuple[int, ...], sizes: Int[Array, "b 2"]) -> Bool[Array, "b h w 1"]:
    """True for cells of a map of ``shape`` (height, width) within the first ``sizes`` rows and columns."""
    rows = jnp.arange(shape[0]) < sizes[:, :1]  # [H] < [B 1]
    columns = jnp.arange(shape[1]) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def map_mask(canvas: tuple[int, ...], sizes: Int[Array, "b 2"] | None, stride: int) -> Mask:
    """The mask of a map of ``stride`` for images of these sizes on a canvas (height, width).

    It is made at the map's resolution: on a TPU, every 64th row and column of the canvas's mask do not fit
    into a core's memory. A CPU keeps it in memory, as it would make it again in every use.
    """
    if sizes is None:
        return None
    height, width = (-(-side // stride) for side in canvas)
    return cpu_barrier(image_mask((height, width), cells(sizes, stride)))


def mask_out(x: Float[Array, "b h w c"], mask: Mask) -> Float[Array, "b h w c"]:
    """``x`` with zeros outside the images."""
    return x if mask is None else jnp.where(mask, x, 0)
