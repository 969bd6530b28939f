"""3x3 convolutions of stride 1 by Winograd's algorithm F(4x4, 3x3) (arXiv 1509.09308).

A tile of 4 x 4 outputs depends on 6 x 6 inputs. These and the kernel are transformed so that what is left to
do is a product of matrices, over channels, for each of 36 places: a quarter of the multiplications.

The points of the polynomials are 0, +-2/3, +-3/2 and infinity, with which rounding is half of that with the
usual 0, +-1, +-2: relative to the outputs' spread it is 1e-6, five times that of adding up products directly.

Every step is kept apart from the next by a barrier. Fused, XLA on a CPU computes a transform again for each
of its uses, which takes longer than all that the algorithm saves.

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
_REACH = TILE + 2  # its inputs

_P, _Q = 2 / 3, 3 / 2  # whose product is 1, which is made use of below
_POINTS = (0.0, _P, -_P, _Q, -_Q)


def _kernel_matrix() -> np.ndarray:
    """What takes the three values of a kernel, along an axis, to the six places."""
    rows = []
    for i, point in enumerate(_POINTS):
        scale = math.prod(point - other for j, other in enumerate(_POINTS) if j != i)
        rows.append([point**power / scale for power in range(3)])
    return np.array([*rows, [0, 0, 1]], np.float32)


_KERNEL = _kernel_matrix()


@outlined
def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """``x``, zero-padded by a cell, convolved as neural networks do: without mirroring the kernel."""
    batch, height, width, _ = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    inputs = _transform_inputs(x)
    kernels = jnp.einsum("ai,bj,ijcd->abcd", _KERNEL, _KERNEL, kernel, precision="highest")
    products = _apart(
        [
            [(inputs[a][b] @ kernels[a, b]).reshape(batch, rows, columns, -1) for b in range(_REACH)]
            for a in range(_REACH)
        ]
    )
    half = _apart([_to_outputs([products[a][b] for a in range(_REACH)]) for b in range(_REACH)])
    outputs = _apart([_to_outputs([half[b][i] for b in range(_REACH)]) for i in range(TILE)])
    tiles = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
    return tiles.reshape(batch, TILE * rows, TILE * columns, -1)[:, :height, :width]


@outlined
def kernel_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b h w d"]) -> Float[Array, "3 3 c d"]:
    """The gradient of the kernel of ``convolve(x, kernel)``, from that of its result."""
    inputs, gradients = _transform_inputs(x), _transform_gradients(gradient)
    places = [
        [contract_rows(u, g) for u, g in zip(*rows, strict=True)]
        for rows in zip(inputs, gradients, strict=True)
    ]
    stacked = jnp.stack([jnp.stack(row) for row in places])
    return jnp.einsum("ai,bj,abcd->ijcd", _KERNEL, _KERNEL, stacked, precision="highest")


def _transform_inputs(x: Array) -> list[list[Array]]:
    """The inputs of all tiles at each of 6 x 6 places: ``[T C]``."""
    _, height, width, channels = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    below, right = TILE * rows + 1 - height, TILE * columns + 1 - width
    padded = jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))
    half = _apart(_from_inputs([padded[:, i : i + TILE * rows - 3 : TILE] for i in range(_REACH)]))
    return [
        [
            place.reshape(-1, channels)
            for place in _apart(
                _from_inputs([row[:, :, j : j + TILE * columns - 3 : TILE] for j in range(_REACH)])
            )
        ]
        for row in half
    ]


def _transform_gradients(gradient: Array) -> list[list[Array]]:
    """What ``_to_outputs`` was given, by the gradient of the outputs: 6 x 6 places ``[T D]``."""
    batch, height, width, channels = gradient.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    below, right = TILE * rows - height, TILE * columns - width
    padded = jnp.pad(gradient, ((0, 0), (0, below), (0, right), (0, 0)))
    tiles = padded.reshape(batch, rows, TILE, columns, TILE, channels)
    half = _apart(_from_outputs([tiles[:, :, i] for i in range(TILE)]))
    return [
        [
            place.reshape(-1, channels)
            for place in _apart(_from_outputs([row[:, :, :, j] for j in range(TILE)]))
        ]
        for row in half
    ]


def _from_inputs(d: list[Array]) -> list[Array]:
    """Six values along an axis at the six places: sums of them by the coefficients of polynomials.

    That of a place is zero at the points of the others, so those of a pair have their odd terms reversed.
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


def _to_outputs(m: list[Array]) -> list[Array]:
    """Four outputs along an axis from the six places: powers of the points times the places, added up."""
    sum_p, difference_p = m[1] + m[2], m[1] - m[2]
    sum_q, difference_q = m[3] + m[4], m[3] - m[4]
    return [
        m[0] + sum_p + sum_q,
        _P * difference_p + _Q * difference_q,
        _P**2 * sum_p + _Q**2 * sum_q,
        _P**3 * difference_p + _Q**3 * difference_q + m[5],
    ]


def _from_outputs(g: list[Array]) -> list[Array]:
    """The transpose of ``_to_outputs``."""
    even_p, odd_p = g[0] + _P**2 * g[2], _P * g[1] + _P**3 * g[3]
    even_q, odd_q = g[0] + _Q**2 * g[2], _Q * g[1] + _Q**3 * g[3]
    return [g[0], even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g[3]]


_apart = lax.optimization_barrier
