"""A depthwise convolution for CPUs, float32, forward and backward.

XLA's own multiplies one number at a time on a CPU. Sums of shifted maps are vectorised over the channels: for
kernels of 7x7 cells 4 to 6 times faster forward, and 9 to 19 times backward (two cores, C2 and C4 of an image
of 800 x 1344 pixels in ConvNeXt-T).

Shapes: B images, H x W cells of a map, C channels, K x K cells of a kernel.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:
    """``x [B H W C]`` with each channel convolved by its own part of ``kernel [K K 1 C]``, with stride 1."""
    return _sum_of_shifted(x, kernel)


@jax.jit  # traced once for all layers of one shape
def _sum_of_shifted(x: Array, kernel: Array) -> Array:
    """The sum of the shifted maps, row by row of the kernel: all at once would take long to compile."""
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    padded = _pad(x, size)

    def add_row(row: Array, total: Array) -> Array:
        rows = lax.dynamic_slice_in_dim(padded, row, height, axis=1)  # [B H W+K-1 C]
        of_row = lax.dynamic_index_in_dim(kernel, row, keepdims=False)  # [K 1 C]
        return total + sum(rows[:, :, j : j + width] * of_row[j, 0] for j in range(size))

    return lax.fori_loop(0, size, add_row, jnp.zeros_like(x))


@functools.partial(jax.jit, static_argnames="size")
def _kernel_gradient(x: Array, gradient: Array, size: int) -> Array:
    """The products of ``gradient`` and the shifted map, summed row by row, so that they stay in the cache."""
    padded, (height, width, channels) = _pad(x, size), x.shape[1:]

    def add_row(row: Array, total: Array) -> Array:
        rows = lax.dynamic_slice_in_dim(padded, row, size, axis=1)  # [B K W+K-1 C]
        of_row = lax.dynamic_slice_in_dim(gradient, row, 1, axis=1)  # [B 1 W C]
        sums = [(rows[:, :, j : j + width] * of_row).sum(axis=(0, 2)) for j in range(size)]
        return total + jnp.stack(sums, axis=1)

    return lax.fori_loop(0, height, add_row, jnp.zeros((size, size, channels)))[:, :, None]


def _backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    grad_x = _sum_of_shifted(gradient, kernel[::-1, ::-1])
    return lax.optimization_barrier((grad_x, _kernel_gradient(x, gradient, kernel.shape[0])))


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _backward)


def _pad(x: Array, size: int) -> Array:
    return jnp.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
