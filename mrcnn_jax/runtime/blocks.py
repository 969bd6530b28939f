"""Work split into blocks of rows, so that what a block needs stays in the cache or fits in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Int32

CPU_BLOCK = 16  # regions: 0.8 MB of 7 x 7 x 256 values fits a core's cache, and leaves blocks for all cores


def in_blocks(function: Callable[[Any], Any], steps: Int32[Array, " n"], regions: Any) -> Any:
    """``function(regions)`` for a CPU: a few regions at a time, those that need as many ``steps`` together.

    All arrays of ``regions`` and of the result have the regions on their first axis. The values of a step
    then stay in the cache, and each block ends with its own last step.
    """
    order = jnp.argsort(steps)
    blocks = split(jax.tree.map(lambda a: a[order], regions), divisor(steps.shape[0], CPU_BLOCK))
    place = jnp.argsort(order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], lax.map(function, blocks))


def divisor(count: int, limit: int) -> int:
    """The largest number up to ``limit``, but at least 1, into which ``count`` can be split evenly."""
    return max(size for size in range(1, max(min(limit, count), 1) + 1) if count % size == 0)


def split(tree: Any, block: int) -> Any:
    """The leading axis of every array split into blocks: ``[N ...]`` to ``[N / block, block, ...]``."""
    return jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), tree)
