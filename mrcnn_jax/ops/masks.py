"""Masks of regions: targets, cropped from the ground truth, and a class's part in a softmax over all classes.

Shapes: N regions, S x S cells of a box-frame mask, L classes with the background, which is class 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Shaped


def crop_box_masks(
    masks: Shaped[Array, "n s s"],
    mask_boxes: Shaped[Array, "n 4"],
    rois: Shaped[Array, "n 4"],
    *,
    size: int,
) -> Float[Array, "n size size"]:
    """Each mask sampled at the centres of its region's ``size x size`` cells, 0 to 1.

    ``masks`` (0 or 1) are grids over ``mask_boxes``, row 0 at the top. They are interpolated bilinearly
    between cell centres, keep the outermost value from there to the edge of the box, and are 0 outside it. A
    mask box without area is empty. Threshold the result at one half for the binary target of Mask R-CNN 3.1.
    """
    masks = masks.astype(jnp.float32)
    mask_boxes, rois = mask_boxes.astype(jnp.float32), rois.astype(jnp.float32)
    rows, columns = (
        _interpolation(mask_boxes[:, axis::2], rois[:, axis::2], cells=masks.shape[-1], size=size)
        for axis in (1, 0)
    )
    # Full float32: at an accelerator's lower default precision, cells near one half would flip.
    half = jnp.einsum("nyi,nij->nyj", rows, masks, precision="highest")
    return jnp.einsum("nyj,nxj->nyx", half, columns, precision="highest")


def _interpolation(
    frame: Float[Array, "n 2"], roi: Float[Array, "n 2"], *, cells: int, size: int
) -> Float[Array, "n size cells"]:
    """Linear weights from the centres of a frame's ``cells`` to the centres of a roi's ``size`` cells."""
    low, high = frame[:, :1], frame[:, 1:]
    centre = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    position = roi[:, :1] + centre * (roi[:, 1:] - roi[:, :1])  # [N 1] + [size] * [N 1]
    side = high - low
    inside = (position >= low) & (position <= high) & (side > 0)
    cell = (position - low) / jnp.where(side > 0, side, 1.0) * cells - 0.5
    cell = jnp.clip(cell, 0.0, cells - 1)
    distance = jnp.abs(cell[..., None] - jnp.arange(cells, dtype=jnp.float32))  # [N size 1] - [cells]
    return jnp.where(inside[..., None], jnp.maximum(1.0 - distance, 0.0), 0.0)


def label_log_probabilities(
    logits: Float[Array, "n *cells l"], labels: Int[Array, " n"]
) -> Float[Array, "n *cells 2"]:
    """The log-probabilities of each region's label and of the background, under a softmax in each cell."""
    both = jnp.stack([_of_label(logits, labels), logits[..., 0]], axis=-1)
    return both - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def label_margins(logits: Float[Array, "n *cells l"], labels: Int[Array, " n"]) -> Float[Array, " n *cells"]:
    """The logit of each region's label in each cell, minus the largest logit of the other classes.

    It is at least 0 where the label is the predicted class (or ties with it). Its sigmoid is p / (p + q),
    with the probabilities p of the label and q of the most probable other class.
    """
    rivals = jnp.where(_is_label(logits, labels), -jnp.inf, logits)
    return _of_label(logits, labels) - rivals.max(axis=-1)


def _of_label(logits: Float[Array, "n *cells l"], labels: Int[Array, " n"]) -> Float[Array, " n *cells"]:
    return jnp.where(_is_label(logits, labels), logits, 0.0).sum(axis=-1)


def _is_label(logits: Float[Array, "n *cells l"], labels: Int[Array, " n"]) -> Bool[Array, "n *ones l"]:
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return is_label.reshape(len(labels), *[1] * (logits.ndim - 2), -1)
