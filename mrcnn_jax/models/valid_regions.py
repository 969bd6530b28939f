"""Applies the mask and keypoint heads only where there are valid regions: positives or detections.

Each image has a fixed number of rows for regions; often only a few, the first ones, are valid. So the heads
run on one block of rows at a time, and skip blocks in which no image has a valid row. Each device decides for
its own images, and adds up the gradient of its blocks before the devices add theirs. In training a block's
activations are recomputed for the gradient: saved for all regions, they would be the largest that a step
keeps.

Shapes: B images (of a device), R regions per image, N regions in a block (of all images).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Shaped

from mrcnn_jax.distributed.sharding import BY_ROW, map_shards

BLOCK = 32  # regions per image


def apply_to_valid(
    head: Callable[..., Array], weights: Any, valid: Bool[Array, "b r"], *inputs: Shaped[Array, "b r *_"]
) -> Shaped[Array, "b r *_"]:
    """The outputs of ``head`` on inputs with a row per region; zero in blocks without a valid region.

    ``head`` maps its weights and a block's rows, ``[N ...]``, to as many rows, and must treat each row
    independently.
    """
    return map_shards(partial(_apply_in_blocks, head), weights, valid, *inputs, split=BY_ROW)


def _apply_in_blocks(
    head: Callable[..., Array], weights: Any, valid: Bool[Array, "b r"], *inputs: Shaped[Array, "b r *_"]
) -> Shaped[Array, "b r *_"]:
    images, count = valid.shape
    blocks = max(1, -(-count // BLOCK))
    size = -(-count // blocks)
    missing = blocks * size - count  # of the last block; rows of zeros, which are not valid

    def split(rows: Array) -> Array:
        if missing:
            rows = jnp.pad(rows, [(0, 0), (0, missing)] + [(0, 0)] * (rows.ndim - 2))
        return jnp.moveaxis(rows.reshape(images, blocks, size, *rows.shape[2:]), 1, 0)

    def apply(block: tuple[Array, ...]) -> Array:
        outputs = head(weights, *(rows.reshape(images * size, *rows.shape[2:]) for rows in block))
        return outputs.reshape(images, size, *outputs.shape[1:])

    # Without barriers, which a loop does not need, and at which jaxlib 0.12 can abort on a CPU.
    @partial(jax.checkpoint, prevent_cse=False)
    def apply_if_valid(operands: tuple[Array, tuple[Array, ...]]) -> Array:
        any_valid, block = operands
        like = jax.eval_shape(apply, block)
        return lax.cond(any_valid, apply, lambda _: jnp.zeros(like.shape, like.dtype), block)

    any_valid = jnp.any(split(valid), axis=(1, 2))
    outputs = jnp.moveaxis(lax.map(apply_if_valid, (any_valid, tuple(map(split, inputs)))), 0, 1)
    return outputs.reshape(images, blocks * size, *outputs.shape[3:])[:, :count]
