"""Learned positions of a vision transformer, fitted to the grid of cells of an image.

Resizing is torch's ``interpolate`` with ``align_corners=False`` and no antialiasing, as in Detectron2's
ViTDet: a constant matrix per axis.

Shapes: H x W cells, C channels.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

_Kernel = Callable[[np.ndarray], np.ndarray]  # the weight of a sample at each distance, in cells


def resize_positions(positions: Float[Array, "h w c"], size: tuple[int, int]) -> Float[Array, "h2 w2 c"]:
    """Positions of another grid: bicubic, with torch's coefficient of -0.75."""
    if positions.shape[:2] == size:
        return positions
    rows, columns = (
        _interpolation(old, new, _cubic, reach=2) for old, new in zip(positions.shape[:2], size, strict=True)
    )
    return jnp.einsum("ab,bdc,ed->aec", rows, positions, columns, precision="highest")


def relative_positions(table: Float[Array, "l c"], size: int) -> Float[Array, "n n c"]:
    """The vector of each pair of cells along an axis of ``size`` cells: row i, column j holds that of i - j.

    ``table`` has one of every distance, from -(n - 1) to n - 1, of an axis of n cells; it is resized linearly
    if ``size`` is not n.
    """
    if len(table) != 2 * size - 1:
        matrix = _interpolation(len(table), 2 * size - 1, _linear, reach=1)
        table = jnp.einsum("ab,bc->ac", matrix, table, precision="highest")
    cells = np.arange(size)
    return table[cells[:, None] - cells[None, :] + size - 1]


def _interpolation(old: int, new: int, kernel: _Kernel, *, reach: int) -> np.ndarray:
    """The matrix [new, old] that samples an axis of ``old`` cells at the centres of ``new`` ones."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int) - reach + 1
    matrix = np.zeros((new, old))
    for tap in range(2 * reach):
        cell = first + tap
        # Beyond the border, its own cell is repeated.
        np.add.at(matrix, (np.arange(new), np.clip(cell, 0, old - 1)), kernel(np.abs(centres - cell)))
    return matrix.astype(np.float32)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys's cubic convolution (1981) with a = -0.75."""
    a, x = -0.75, distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
