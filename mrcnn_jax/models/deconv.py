"""Stride-2 deconvolutions, written as convolutions at the input's resolution.

XLA computes the gradient of a strided transposed convolution over a zero-dilated input: on the CPU, with a
2x2 kernel, that took 385 ms; the convolution below takes 5.

Kernels are laid out ``[row, column, in, out]`` and oriented as in torch's ``ConvTranspose2d``: input cell i
adds ``x[i] @ kernel[k]`` to output cell ``2 i + k - padding``.

Shapes: N maps or regions of H x W or P x P cells, C and D channels in and out.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.distributed.weights import apply_weights
from mrcnn_jax.ops.conv import add_bias, convolve

# Arrays [N H W ...]: of each cell the upper left, upper right, lower left and lower right output.
FourCells = tuple[Array, Array, Array, Array]

# torch's "fan_out" of a deconvolution, which Detectron2 uses here, counts the input channels.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class Deconv2x2(nnx.Module):
    """A 2x2 deconvolution of stride 2: every output cell comes from one input cell.

    The four outputs of every cell are returned apart, for ``interleave`` to place side by side. That moves
    every value, so layers that treat output cells one by one come first: the mask head's last leaves one of
    256. As one array with axes of 2 x 2 before the channels, they would fill a TPU's tiles badly.
    """

    def __init__(self, in_channels: int, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(_he_normal(rngs.params(), (2, 2, in_channels, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> FourCells:
        return apply_weights(_deconvolve_2x2, (self.kernel[...], self.bias[...]), x.astype(self.dtype))


class Deconv4x4(nnx.Module):
    """A 4x4 deconvolution of stride 2 and padding 1.

    Output cell 2 i + a reads input cells i - 1 and i if a is 0, and i and i + 1 if a is 1. So each of an
    input cell's 2x2 output cells is a 3x3 convolution whose kernel is zero in one row and one column.
    """

    def __init__(self, in_channels: int, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(_he_normal(rngs.params(), (4, 4, in_channels, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n p p c"]) -> Float[Array, "n p2 p2 d"]:
        return apply_weights(_deconvolve_4x4, (self.kernel[...], self.bias[...]), x.astype(self.dtype))


def _deconvolve_2x2(weights: tuple[Array, Array], x: Float[Array, "n h w c"]) -> FourCells:
    kernel, bias = (array.astype(x.dtype) for array in weights)
    upper_left, upper_right, lower_left, lower_right = (
        add_bias(convolve(x, kernel[a : a + 1, b : b + 1]), bias) for a in range(2) for b in range(2)
    )
    return upper_left, upper_right, lower_left, lower_right


def _deconvolve_4x4(weights: tuple[Array, Array], x: Float[Array, "n p p c"]) -> Float[Array, "n p2 p2 d"]:
    kernel, bias = (array.astype(x.dtype) for array in weights)
    c, d = kernel.shape[2:]
    as_3x3 = jnp.zeros((3, 3, c, 2, 2, d), x.dtype)
    for a in range(2):
        for b in range(2):
            as_3x3 = as_3x3.at[a : a + 2, b : b + 2, :, a, b].set(kernel[3 - a :: -2, 3 - b :: -2])
    cells = convolve(x, as_3x3.reshape(3, 3, c, 4 * d))
    return add_bias(_side_by_side(cells.reshape(*cells.shape[:3], 2, 2, d)), bias)


def interleave(cells: FourCells) -> Float[Array, "n h2 w2 *c"]:
    """The map at twice the resolution, from the four outputs of each cell."""
    stacked = jnp.stack(cells, axis=3)
    return _side_by_side(stacked.reshape(*stacked.shape[:3], 2, 2, *stacked.shape[4:]))


def _side_by_side(cells: Float[Array, "n h w 2 2 *c"]) -> Float[Array, "n h2 w2 *c"]:
    n, h, w, _, _, *channels = cells.shape
    return cells.swapaxes(2, 3).reshape(n, 2 * h, 2 * w, *channels)
