"""Faster forms of the float32 convolution on a CPU, forward and backward.

XLA's own kernel gradient transposes the map first, its gradient of a strided convolution multiplies by zeros,
and Winograd's algorithm needs a quarter of the multiplications on large maps and on many regions.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from mrcnn_jax.ops.conv import plain, winograd
from mrcnn_jax.ops.conv.matmul import contract_rows, multiply

_FEWEST_CHANNELS = 128  # for Winograd's algorithm to pay
_LARGEST_WASTE = 1.35  # computed outputs, in whole tiles, to those of the map; 1.31 for 14 x 14


def pointwise(x: Array, kernel: Array, *, stride: int) -> Array:
    """A 1x1 convolution as a product of matrices."""
    x = x[:, ::stride, ::stride]
    rows = multiply(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return rows.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def three_by_three(x: Array, kernel: Array) -> Array:
    return winograd.convolve(x, kernel) if _pays(x.shape, kernel.shape) else plain.convolve(x, kernel)


def _three_by_three_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    mirrored = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    if _pays(x.shape, kernel.shape):
        of_x = winograd.convolve(gradient, mirrored)
        of_kernel = winograd.kernel_gradient(lax.optimization_barrier(x), gradient)
    else:
        of_x = plain.convolve(gradient, mirrored)
        of_kernel = _kernel_gradient(x, gradient)
    return lax.optimization_barrier((of_x, of_kernel))


three_by_three.defvjp(lambda x, kernel: (three_by_three(x, kernel), (x, kernel)), _three_by_three_backward)


def _kernel_gradient(x: Array, gradient: Array) -> Array:
    """The convolution of ``x`` by its gradient, cells for channels, in the layout that XLA has Eigen do.

    Differentiated by JAX it has another, which XLA changes, but not within a loop or under a condition. There
    it would take thirty times longer.
    """
    by_gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return by_gradient.transpose(1, 2, 0, 3)


def _pays(x: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether Winograd's algorithm is faster for these shapes: with few rows, its products are all kernel."""
    batch, height, width, _ = x
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    channels = kernel[2:]
    return (
        min(channels) >= _FEWEST_CHANNELS
        and batch * tiles >= max(channels)
        and tiles * winograd.TILE**2 <= _LARGEST_WASTE * height * width
    )


@jax.custom_vjp
def halving(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of stride 2, of a map with even sides."""
    return plain.convolve(x, kernel, stride=2)


def _halving_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    batch, height, width, channels = x.shape
    # An even row of the input is seen by the middle row of the kernel alone; an odd one by the last row, for
    # the output before it, and by the first, for the one behind it. So are columns.
    mirrored = jnp.swapaxes(kernel, 2, 3)
    seen = ((slice(1, 2), (0, 0)), (slice(None, None, -2), (0, 1)))
    by_parity = [
        [
            lax.conv_general_dilated(
                gradient,
                mirrored[rows, columns],
                (1, 1),
                (below, right),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for columns, right in seen
        ]
        for rows, below in seen
    ]
    of_x = jnp.stack([jnp.stack(row, axis=3) for row in by_parity], axis=2)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows_of_gradient = gradient.reshape(-1, gradient.shape[-1])
    of_kernel = [
        [
            contract_rows(
                padded[:, i : i + height : 2, j : j + width : 2].reshape(-1, channels), rows_of_gradient
            )
            for j in range(3)
        ]
        for i in range(3)
    ]
    return of_x.reshape(batch, height, width, channels), jnp.stack([jnp.stack(row) for row in of_kernel])


halving.defvjp(lambda x, kernel: (halving(x, kernel), (x, kernel)), _halving_backward)
