"""Anchors: the reference boxes of the region proposal network."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, Int32


def make_anchors(
    grid: tuple[int, ...],
    stride: Int[Array, "2"],
    *,
    sizes: tuple[float, ...],
    ratios: tuple[float, ...],
    rounded: bool = False,
) -> Float[Array, "a 4"]:
    """Anchors of a feature map with a ``grid`` of (rows, columns) cells, in pixels.

    Each cell's corner, ``(x, y)`` times ``stride`` (pixels from row to row and from column to column), is the
    centre of one anchor of area ``size**2`` for each of ``sizes`` and each of ``ratios`` (height / width).
    Anchors are ordered by y, x, size, ratio, like a head's output ``[H W A]`` reshaped to ``[H*W*A]``. As in
    Detectron2 with offset 0. With ``rounded``, the corners of the anchors at the origin are rounded to whole
    pixels, halves to even, as in torchvision. Anchors may extend beyond the image.
    """
    sides = half_sides(sizes, ratios, rounded=rounded)
    row, column, kind = anchor_cells(grid, len(sides))
    y, x = (row * stride[0]).astype(jnp.float32), (column * stride[1]).astype(jnp.float32)
    half_height, half_width = (_by_kind(kind, values) for values in sides.T)
    return jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def anchor_cells(
    grid: tuple[int, ...], per_cell: int
) -> tuple[Int32[Array, " a"], Int32[Array, " a"], Int32[Array, " a"]]:
    """Row and column of every anchor's cell, and its number among the ``per_cell`` anchors there.

    XLA computes them where they are used: an iota is no constant of the program, as an array of 268k rows
    would be. They are never ``[H W A]``, whose last axis a TPU would pad from 3 to 128.
    """
    index = lax.iota(jnp.int32, grid[0] * grid[1] * per_cell)
    cell = index // per_cell
    return cell // grid[1], cell % grid[1], index % per_cell


def _by_kind(kind: Int32[Array, " a"], values: np.ndarray) -> Float[Array, " a"]:
    """``values[kind]``, by selection: a gather from a table of 3 is slow on a TPU."""
    chosen = jnp.full(kind.shape, values[0])
    for number, value in enumerate(values[1:], start=1):
        chosen = jnp.where(kind == number, value, chosen)
    return chosen


def half_sides(sizes: tuple[float, ...], ratios: tuple[float, ...], *, rounded: bool) -> np.ndarray:
    """Half the height and half the width of a cell's anchors, as in ``make_anchors``: ``[A 2]`` float32."""
    size, root = np.array(sizes)[:, None], np.sqrt(np.array(ratios))
    halves = np.stack([size * root, size / root], axis=-1).reshape(-1, 2).astype(np.float32) / 2
    return np.round(halves) if rounded else halves
