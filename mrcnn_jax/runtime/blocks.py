"""Splits work into blocks of rows, so that a block's data stay in the cache or fit in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Int32

CPU_BLOCK = 16  # regions: 0.8 MB of 7 x 7 x 256 values fit a core's cache, and leave blocks for all cores


def in_blocks(function: Callable[[Any], Any], steps: Int32[Array, " n"], regions: Any) -> Any:
    """``function(regions)`` for a CPU: in blocks of a few regions that need similar numbers of ``steps``.

    Regions are the first axis of all arrays in ``regions`` and in the result. A step's values then stay in
    the cache, and each block ends after its own last step.
    """
    order = jnp.argsort(steps)
    blocks = split(jax.tree.map(lambda a: a[order], regions), divisor(steps.shape[0], CPU_BLOCK))
    inverse = jnp.argsort(order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[inverse], lax.map(function, blocks))


def divisor(count: int, limit: int) -> int:
    """The largest divisor of ``count`` up to ``limit``, at least 1."""
    return max(size for size in range(1, max(min(limit, count), 1) + 1) if count % size == 0)


def split(tree: Any, block: int) -> Any:
    """The leading axis of every array split into blocks: ``[N ...]`` to ``[N / block, block, ...]``."""
    return jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), tree)
