"""The heads of masks and keypoints on the regions that count: the positive ones in training, or detections.

There is a row for each region that an image may have, but often few of them are valid, and these come first.
So the heads take a block of rows at a time, and none in which no image has a valid one. In training they keep
nothing of a block but compute it once more for the gradient: for all regions it would be the most that a
step keeps.

Shapes: B images, R regions of each, N of a block of all images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Shaped

from mrcnn_jax.runtime.blocks import divisor

BLOCK = 32  # regions of each image


def apply_to_valid(
    head: Callable[..., Array], valid: Bool[Array, "b r"], *of_regions: Shaped[Array, "b r *_"]
) -> Shaped[Array, "b r *_"]:
    """What ``head`` makes of arrays that have a row for each region; zero where a block has no valid one.

    ``head`` takes the rows of a block, ``[N ...]``, gives as many, and must look at each by itself.
    """
    images, count = valid.shape
    size = divisor(count, BLOCK)

    def split(rows: Array) -> Array:
        return jnp.moveaxis(rows.reshape(images, count // size, size, *rows.shape[2:]), 1, 0)

    def of_all(block: tuple[Array, ...]) -> Array:
        made = head(*(rows.reshape(images * size, *rows.shape[2:]) for rows in block))
        return made.reshape(images, size, *made.shape[1:])

    @jax.checkpoint
    def of_block(operands: tuple[Array, tuple[Array, ...]]) -> Array:
        any_valid, block = operands
        like = jax.eval_shape(of_all, block)
        return lax.cond(any_valid, of_all, lambda _: jnp.zeros(like.shape, like.dtype), block)

    any_valid = jnp.any(split(valid), axis=(1, 2))
    made = jnp.moveaxis(lax.map(of_block, (any_valid, tuple(map(split, of_regions)))), 0, 1)
    return made.reshape(images, count, *made.shape[3:])
