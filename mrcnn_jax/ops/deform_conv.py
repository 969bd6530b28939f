"""Deformable convolution (arXiv 1703.06211), modulated or not (arXiv 1811.11168).

Shapes: B images, H x W cells of a map, C and D channels, K x K taps of a kernel.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def deform_conv(
    x: Float[Array, "b h w c"],
    offsets: Float[Array, "b h2 w2 _"],
    kernel: Float[Array, "k k _ d"],
    modulation: Float[Array, "b h2 w2 _"] | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """A convolution whose taps read the map beside their cells, by bilinear interpolation; 0 beyond the map.

    ``offsets`` has how far, in cells, down and to the right, for each of the K * K taps in turn;
    ``modulation`` has a factor for each. The results are torchvision's ``deform_conv2d`` (zero-padded by half
    the kernel's extent), up to rounding.
    """
    batch, height, width = offsets.shape[:3]
    size = kernel.shape[0]
    taps = dilation * (jnp.arange(size) - size // 2)
    offsets = offsets.astype(jnp.float32).reshape(batch, height, width, size, size, 2)
    y = stride * jnp.arange(height)[:, None, None, None] + taps[:, None] + offsets[..., 0]
    x_position = stride * jnp.arange(width)[:, None, None] + taps + offsets[..., 1]
    sampled = jax.vmap(_bilinear)(x, y, x_position)
    if modulation is not None:
        sampled *= modulation.reshape(*sampled.shape[:-1], 1)
    sampled = sampled.astype(x.dtype).reshape(batch, height, width, size**2, groups, -1)
    by_group = kernel.reshape(size**2, sampled.shape[-1], groups, -1)
    return jnp.einsum("bhwtgc,tcgd->bhwgd", sampled, by_group).reshape(batch, height, width, -1)


def _bilinear(
    features: Float[Array, "h w c"], y: Float[Array, "*n"], x: Float[Array, "*n"]
) -> Float[Array, "*n c"]:
    """The map at the positions; its four neighbours that lie outside count as 0. Float32."""
    height, width = features.shape[:2]
    top, left = jnp.floor(y), jnp.floor(x)
    cells = features.reshape(height * width, -1)
    total = jnp.zeros((), jnp.float32)
    for row, row_share in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_share in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            # Clipped as floats: a far position would overflow an integer.
            index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
            share = jnp.where(inside, row_share * column_share, 0.0)
            total += share[..., None] * cells[index.astype(jnp.int32)].astype(jnp.float32)
    return total
