"""Mask targets: ground-truth masks, kept in the frame of their boxes, as regions of interest see them.

Shapes: N pairs of a mask and a region, S x S cells of a box-frame mask.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Shaped


def crop_box_masks(
    masks: Shaped[Array, "n s s"],
    mask_boxes: Shaped[Array, "n 4"],
    rois: Shaped[Array, "n 4"],
    *,
    size: int,
) -> Float[Array, "n size size"]:
    """Values, 0 to 1, of each mask at the centres of the ``size x size`` cells of its region.

    ``masks`` (0 or 1) are grids over ``mask_boxes``, row 0 at the top. Between the centres of their cells
    they are interpolated bilinearly, up to the border of the box they keep the outermost value, and beyond it
    they are 0. A mask box without area is empty. Threshold the result at one half for the binary target of
    Mask R-CNN 3.1.
    """
    masks = masks.astype(jnp.float32)
    mask_boxes, rois = mask_boxes.astype(jnp.float32), rois.astype(jnp.float32)
    rows, columns = (
        _interpolation(mask_boxes[:, axis::2], rois[:, axis::2], cells=masks.shape[-1], size=size)
        for axis in (1, 0)
    )
    # In float32 throughout: accelerators would round to fewer bits, and cells near one half would flip.
    half = jnp.einsum("nyi,nij->nyj", rows, masks, precision="highest")
    return jnp.einsum("nyj,nxj->nyx", half, columns, precision="highest")


def _interpolation(
    frame: Float[Array, "n 2"], roi: Float[Array, "n 2"], *, cells: int, size: int
) -> Float[Array, "n size cells"]:
    """Weights that take values at the centres of ``cells`` of a frame to those of ``size`` cells of a roi."""
    low, high = frame[:, :1], frame[:, 1:]
    centre = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    position = roi[:, :1] + centre * (roi[:, 1:] - roi[:, :1])  # [N 1] + [size] * [N 1]
    side = high - low
    inside = (position >= low) & (position <= high) & (side > 0)
    cell = (position - low) / jnp.where(side > 0, side, 1.0) * cells - 0.5
    cell = jnp.clip(cell, 0.0, cells - 1)
    distance = jnp.abs(cell[..., None] - jnp.arange(cells, dtype=jnp.float32))  # [N size 1] - [cells]
    return jnp.where(inside[..., None], jnp.maximum(1.0 - distance, 0.0), 0.0)
