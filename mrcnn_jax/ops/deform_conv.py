"""Deformable convolution (arXiv 1703.06211), modulated or not (arXiv 1811.11168).

Shapes: B images, H x W cells of a map, C and D channels, K x K taps of a kernel, N places that are read.

A place lies between four cells. By the form "apart" each of them is read by itself. By "together" they are
one row of a table that has, for every cell, itself and its neighbours to the right, below, and below to the
right: a TPU takes 11 cycles for a row of 512 values and 24 for one of 2048, and the gradient adds to one row
instead of four.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mrcnn_jax.runtime.platforms import DEFORM_CONV, by_platform


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
    sampled = jax.vmap(_bilinear)(x, y.reshape(batch, -1), x_position.reshape(batch, -1))
    if modulation is not None:
        sampled *= modulation.reshape(batch, -1, 1)
    sampled = sampled.astype(x.dtype).reshape(batch, height, width, size**2, groups, -1)
    by_group = kernel.reshape(size**2, sampled.shape[-1], groups, -1)
    return jnp.einsum("bhwtgc,tcgd->bhwgd", sampled, by_group).reshape(batch, height, width, -1)


def _bilinear(
    features: Float[Array, "h w c"], y: Float[Array, " n"], x: Float[Array, " n"]
) -> Float[Array, "n c"]:
    """The map at the places; of their four neighbours, those that lie outside count as 0. Float32."""
    height, width = features.shape[:2]
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    top, left = jnp.floor(y), jnp.floor(x)
    # In the map with a border of zeros. Clipped as floats: a far position would overflow an integer.
    row, column = jnp.clip(top, -1, height - 1) + 1, jnp.clip(left, -1, width - 1) + 1
    forms = {platform: _FORMS[form] for platform, form in DEFORM_CONV.items()}
    padded = jnp.pad(features, [(1, 1), (1, 1), (0, 0)])
    corners = by_platform(forms, padded, row.astype(jnp.int32), column.astype(jnp.int32))

    total = jnp.zeros((), jnp.float32)
    shares = (
        row_share * column_share
        for row_share in (top + 1 - y, y - top)
        for column_share in (left + 1 - x, x - left)
    )
    for corner, share in zip(corners, shares, strict=True):
        total += jnp.where(inside, share, 0.0)[:, None] * corner.astype(jnp.float32)
    return total


def _apart(padded: Float[Array, "h w c"], row: Int[Array, " n"], column: Int[Array, " n"]) -> list[Array]:
    """Four cells for each given one: itself, and those to the right, below, and below to the right."""
    width, channels = padded.shape[1:]
    table, index = padded.reshape(-1, channels), row * width + column
    return [_rows(table, index + step) for step in (0, 1, width, width + 1)]


def _together(padded: Float[Array, "h w c"], row: Int[Array, " n"], column: Int[Array, " n"]) -> list[Array]:
    """As ``_apart``."""
    width, channels = padded.shape[1:]
    cells = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]
    table = jnp.concatenate(cells, axis=-1).reshape(-1, 4 * channels)
    return jnp.split(_rows(table, row * (width - 1) + column), 4, axis=-1)


_FORMS = {"apart": _apart, "together": _together}


@jax.custom_vjp
def _rows(table: Float[Array, "m c"], index: Int[Array, " n"]) -> Float[Array, "n c"]:
    """Rows of the table; its gradient is added up in float32."""
    return table.at[index].get(mode="promise_in_bounds")


def _rows_forward(table: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rows(table, index), (table, index)


def _rows_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    table, index = kept
    total = jnp.zeros(table.shape, jnp.float32).at[index].add(gradient, mode="promise_in_bounds")
    return total.astype(table.dtype), None


_rows.defvjp(_rows_forward, _rows_backward)
