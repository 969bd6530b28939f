"""Stochastic depth (arXiv 1603.09382): branches of residual blocks are dropped at random, image by image."""

import jax
from jax import Array
from jaxtyping import Float, Key

# One key for each image, or None in inference.
Keys = Key[Array, " b"] | None


def drop_path(x: Float[Array, "b h w c"], keys: Keys, branch: int, *, rate: float) -> Float[Array, "b h w c"]:
    """``x``, but zero in a random share ``rate`` of the images, and scaled so that the mean is the same.

    ``branch`` numbers the branches of a block; nothing is dropped without ``keys``.
    """
    if keys is None or rate == 0:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, branch), 1 - rate))(keys)
    return x * (kept / (1 - rate)).astype(x.dtype)[:, None, None, None]


def keys_of_block(keys: Keys, number: int) -> Keys:
    """The images' keys in the block of this number, counted over the whole backbone."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)
