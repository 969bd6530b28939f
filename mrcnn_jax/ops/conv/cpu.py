"""Faster float32 convolutions for CPUs, forward and backward.

XLA's own kernel gradient transposes the map first, and its gradient of a strided convolution multiplies by
zeros. On large maps and on many regions, Winograd's algorithm needs a quarter of the multiplications.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from mrcnn_jax.ops.conv import plain, winograd
from mrcnn_jax.ops.conv.matmul import contract_rows, matmul

_MIN_WINOGRAD_CHANNELS = 128  # with fewer, Winograd's algorithm is not faster
_MAX_TILE_OVERHEAD = 1.35  # outputs computed, in whole tiles, over outputs needed; 1.31 for 14 x 14


def conv1x1(x: Array, kernel: Array, *, stride: int) -> Array:
    """A 1x1 convolution as a matmul."""
    x = x[:, ::stride, ::stride]
    rows = matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return rows.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of stride 1, by Winograd's algorithm where that is faster."""
    if _winograd_is_faster(x.shape, kernel.shape):
        return winograd.convolve(x, kernel)
    return plain.convolve(x, kernel)


def _conv3x3_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    mirrored = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    if _winograd_is_faster(x.shape, kernel.shape):
        grad_x = winograd.convolve(gradient, mirrored)
        grad_kernel = winograd.kernel_gradient(lax.optimization_barrier(x), gradient)
    else:
        grad_x = plain.convolve(gradient, mirrored)
        grad_kernel = _kernel_gradient(x, gradient)
    return lax.optimization_barrier((grad_x, grad_kernel))


conv3x3.defvjp(lambda x, kernel: (conv3x3(x, kernel), (x, kernel)), _conv3x3_backward)


def _kernel_gradient(x: Array, gradient: Array) -> Array:
    """The kernel's gradient: ``x`` convolved with ``gradient``, in the layout for which XLA calls Eigen.

    JAX's own gradient has another layout, which XLA converts, but not inside lax.scan or lax.cond. There it
    is about 30 times slower.
    """
    grad_kernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return grad_kernel.transpose(1, 2, 0, 3)


def _winograd_is_faster(x: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether Winograd's algorithm is faster for these shapes.

    With few tiles, the cost of transforming the kernel dominates.
    """
    batch, height, width, _ = x
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    channels = kernel[2:]
    return (
        min(channels) >= _MIN_WINOGRAD_CHANNELS
        and batch * tiles >= max(channels)
        and tiles * winograd.TILE**2 <= _MAX_TILE_OVERHEAD * height * width
    )


@jax.custom_vjp
def conv3x3_stride2(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of stride 2 on a map with even sides."""
    return plain.convolve(x, kernel, stride=2)


def _conv3x3_stride2_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    batch, height, width, channels = x.shape
    # An even input row meets only the kernel's middle row; an odd one meets the last row, for the output
    # before it, and the first, for the output after it. Likewise for columns.
    transposed = jnp.swapaxes(kernel, 2, 3)
    taps = ((slice(1, 2), (0, 0)), (slice(None, None, -2), (0, 1)))
    by_parity = [
        [
            lax.conv_general_dilated(
                gradient,
                transposed[rows, columns],
                (1, 1),
                (below, right),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for columns, right in taps
        ]
        for rows, below in taps
    ]
    grad_x = jnp.stack([jnp.stack(row, axis=3) for row in by_parity], axis=2)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    gradient_rows = gradient.reshape(-1, gradient.shape[-1])
    grad_kernel = [
        [
            contract_rows(
                padded[:, i : i + height : 2, j : j + width : 2].reshape(-1, channels), gradient_rows
            )
            for j in range(3)
        ]
        for i in range(3)
    ]
    return grad_x.reshape(batch, height, width, channels), jnp.stack([jnp.stack(row) for row in grad_kernel])


conv3x3_stride2.defvjp(lambda x, kernel: (conv3x3_stride2(x, kernel), (x, kernel)), _conv3x3_stride2_backward)
