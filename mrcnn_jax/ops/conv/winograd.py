"""3x3 convolutions of stride 1 by Winograd's algorithm F(4x4, 3x3) (arXiv 1509.09308).

A tile of 4 x 4 outputs depends on 6 x 6 inputs. Inputs and kernel are transformed so that the convolution
becomes a matmul over channels at each of 6 x 6 positions: a quarter of the multiplications.

The interpolation points are 0, +-2/3, +-3/2 and infinity, which halve the rounding error of the usual 0, +-1,
+-2: it is 1e-6 of the outputs' standard deviation, five times that of a direct convolution.

Optimization barriers separate the steps. Without them XLA fuses a transform into each of its uses on a CPU
and recomputes it, which costs more than the algorithm saves.

Shapes: B images, H x W cells of a map, C and D channels, T tiles of all images.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from mrcnn_jax.ops.conv.matmul import contract_rows
from mrcnn_jax.runtime.barriers import outlined

TILE = 4  # outputs of a tile, per axis
_SIZE = TILE + 2  # inputs of a tile, and positions of its transform, per axis

_P, _Q = 2 / 3, 3 / 2  # the formulas below rely on _P * _Q == 1
_POINTS = (0.0, _P, -_P, _Q, -_Q)


def _kernel_matrix() -> np.ndarray:
    """The kernel transform along an axis, from three values to six positions."""
    rows = []
    for i, point in enumerate(_POINTS):
        scale = math.prod(point - other for j, other in enumerate(_POINTS) if j != i)
        rows.append([point**power / scale for power in range(3)])
    return np.array([*rows, [0, 0, 1]], np.float32)


_KERNEL = _kernel_matrix()


@outlined
def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """``x``, zero-padded by one cell, convolved with ``kernel``, which is not mirrored."""
    batch, height, width, _ = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    inputs = _transform_inputs(x)
    kernels = jnp.einsum("ai,bj,ijcd->abcd", _KERNEL, _KERNEL, kernel, precision="highest")
    transformed = _barrier(
        [
            [(inputs[a][b] @ kernels[a, b]).reshape(batch, rows, columns, -1) for b in range(_SIZE)]
            for a in range(_SIZE)
        ]
    )
    half = _barrier([_output_transform([transformed[a][b] for a in range(_SIZE)]) for b in range(_SIZE)])
    outputs = _barrier([_output_transform([half[b][i] for b in range(_SIZE)]) for i in range(TILE)])
    tiles = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
    return tiles.reshape(batch, TILE * rows, TILE * columns, -1)[:, :height, :width]


@outlined
def kernel_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b h w d"]) -> Float[Array, "3 3 c d"]:
    """The kernel's gradient in ``convolve(x, kernel)``, given the gradient of the result."""
    inputs, gradients = _transform_inputs(x), _transform_gradients(gradient)
    positions = [
        [contract_rows(u, g) for u, g in zip(*rows, strict=True)]
        for rows in zip(inputs, gradients, strict=True)
    ]
    stacked = jnp.stack([jnp.stack(row) for row in positions])
    return jnp.einsum("ai,bj,abcd->ijcd", _KERNEL, _KERNEL, stacked, precision="highest")


def _transform_inputs(x: Array) -> list[list[Array]]:
    """The transformed inputs of all tiles at each of 6 x 6 positions: ``[T C]``."""
    _, height, width, channels = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    below, right = TILE * rows + 1 - height, TILE * columns + 1 - width
    padded = jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))
    half = _barrier(_input_transform([padded[:, i : i + TILE * rows - 3 : TILE] for i in range(_SIZE)]))
    return [
        [
            position.reshape(-1, channels)
            for position in _barrier(
                _input_transform([row[:, :, j : j + TILE * columns - 3 : TILE] for j in range(_SIZE)])
            )
        ]
        for row in half
    ]


def _transform_gradients(gradient: Array) -> list[list[Array]]:
    """The gradients of the transformed outputs at each of 6 x 6 positions: ``[T D]``."""
    batch, height, width, channels = gradient.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    below, right = TILE * rows - height, TILE * columns - width
    padded = jnp.pad(gradient, ((0, 0), (0, below), (0, right), (0, 0)))
    tiles = padded.reshape(batch, rows, TILE, columns, TILE, channels)
    half = _barrier(_output_transform_transpose([tiles[:, :, i] for i in range(TILE)]))
    return [
        [
            position.reshape(-1, channels)
            for position in _barrier(_output_transform_transpose([row[:, :, :, j] for j in range(TILE)]))
        ]
        for row in half
    ]


def _input_transform(d: list[Array]) -> list[Array]:
    """The input transform along an axis, from six values to six positions.

    A position's weights are the coefficients of a polynomial that is zero at the other positions' points, so
    the polynomials of a pair +-p differ only in the sign of their odd terms.
    """
    even_p, odd_p = d[4] - _Q**2 * d[2], _P * d[3] - _Q * d[1]
    even_q, odd_q = d[4] - _P**2 * d[2], _Q * d[3] - _P * d[1]
    squares = _P**2 + _Q**2
    return [
        d[0] - squares * d[2] + d[4],
        even_p + odd_p,
        even_p - odd_p,
        even_q + odd_q,
        even_q - odd_q,
        d[1] - squares * d[3] + d[5],
    ]


def _output_transform(m: list[Array]) -> list[Array]:
    """The output transform along an axis, from six positions to four outputs: sums over powers of points."""
    sum_p, difference_p = m[1] + m[2], m[1] - m[2]
    sum_q, difference_q = m[3] + m[4], m[3] - m[4]
    return [
        m[0] + sum_p + sum_q,
        _P * difference_p + _Q * difference_q,
        _P**2 * sum_p + _Q**2 * sum_q,
        _P**3 * difference_p + _Q**3 * difference_q + m[5],
    ]


def _output_transform_transpose(g: list[Array]) -> list[Array]:
    """The transpose of ``_output_transform``."""
    even_p, odd_p = g[0] + _P**2 * g[2], _P * g[1] + _P**3 * g[3]
    even_q, odd_q = g[0] + _Q**2 * g[2], _Q * g[1] + _Q**3 * g[3]
    return [g[0], even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g[3]]


_barrier = lax.optimization_barrier
