"""How the work on regions is done on each platform: the one place where that is chosen."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jaxtyping import Int32

CACHED_VALUES = 16384  # float32: 64 KiB, of which a step reads and writes a few times as much


def in_blocks(function: Callable[..., Any], values: int, *operands: Any) -> Any:
    """``function(*operands, block=...)`` with the block, a divisor of the regions, that suits the platform.

    The operands' arrays all have the regions on their first axis, and ``values`` is how many results a region
    has. A CPU is twice as fast where the values of one step stay in its cache, and where the number of steps
    depends on the regions each small block ends with its own last step. Accelerators want few large steps.
    """
    count = jax.tree.leaves(operands)[0].shape[0]
    limit = max(CACHED_VALUES // values, 1)
    small = max(size for size in range(1, limit + 1) if count % size == 0)
    return lax.platform_dependent(
        *operands,
        cpu=functools.partial(function, block=small),
        default=functools.partial(function, block=max(count, 1)),
    )


def split(tree: Any, block: int) -> Any:
    """The leading axis of every array split into blocks: ``[N ...]`` to ``[N / block, block, ...]``."""
    return jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), tree)


@custom_vmap
def batch_max(values: Int32[Array, "..."]) -> Int32[Array, ""]:
    """The maximum, and at least 0; under ``vmap`` that of the whole batch.

    As a loop's bound it is shared by the images of a batch. A bound per image would make ``vmap`` select
    between the old and the new state of the loop, all of it, at every step.
    """
    return jnp.max(values, initial=0)


@batch_max.def_vmap
def _batch_max_rule(axis_size: int, in_batched: list[bool], values: Array) -> tuple[Array, bool]:
    return batch_max(values.reshape(-1)), False
