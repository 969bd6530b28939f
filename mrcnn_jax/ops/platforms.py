"""How the work on boxes and regions is done on each platform: the one place where that is chosen."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Int32

# The form of RoIAlign, of the features and of the gradient. "cached" keeps what a core works on in its cache;
# "gather" does all regions at once, in few large steps; "einsum" has products of matrices alone, for which a
# TPU is made. A GPU, the default, gathers well, but the gradient would scatter: a float32 scatter-add is a
# loop of compare-and-swap in jaxlib 0.10.2 to 0.11.0, reported to be hundreds of times slower when
# contended (openxla/xla issue 46225). Accelerators: by reasoning, measured on none; scripts/benchmark_roi.py
# does it.
ROI_ALIGN = {"cpu": "cached", "tpu": "einsum", "default": "gather"}
ROI_ALIGN_GRADIENT = {"cpu": "cached", "default": "einsum"}

# Boxes that non-maximum suppression decides together. On a CPU few, so that most of the suppressed boxes are
# compared with kept ones alone; 32 was the fastest of 32, 64 and 128. Elsewhere a step of a loop costs more
# than its work, so all boxes of an image are one block, up to 256 MB for a matrix of all pairs as booleans:
# 8819 of a pyramid in training, 12000 of a C4 model. Accelerators: by reasoning, measured on none.
NMS_BLOCK = {"cpu": 32, "default": 16384}

# Regions done together on a CPU: 0.8 MB of 7 x 7 x 256, for the caches of its cores, and enough to share out.
BLOCK = 16


def by_platform(forms: dict[str, Callable[..., Any]], *operands: Any) -> Any:
    """``forms[platform](*operands)`` of the platform that the program is compiled for, or of "default"."""
    return lax.platform_dependent(*operands, **forms)


def keep_apart(values: Any) -> Any:
    """``values``; a CPU computes all of them, and writes them to memory, before what uses one of them."""
    return by_platform({"cpu": lax.optimization_barrier, "default": lambda values: values}, values)


def as_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` jitted, for a CPU: a computation of its own also within a larger program.

    XLA would make its operations part of the caller's, and compares each of these with all others, for what
    can run beside it: of 12,000 operations that takes several seconds, even where they are loaded from the
    compilation cache.
    """

    @jax.jit
    @functools.wraps(function)
    def called(*operands: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # what it calls itself
            return function(*operands)

    @functools.wraps(function)
    def call(*operands: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return called(*operands)

    return call


def in_blocks(function: Callable[[Any], Any], steps: Int32[Array, " n"], regions: Any) -> Any:
    """``function(regions)`` for a CPU: a few regions at a time, those that need as many ``steps`` together.

    All arrays of ``regions`` and of the result have the regions on their first axis. The values of a step
    then stay in the cache, and each block ends with its own last step.
    """
    order = jnp.argsort(steps)
    blocks = split(jax.tree.map(lambda a: a[order], regions), divisor(steps.shape[0], BLOCK))
    place = jnp.argsort(order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], lax.map(function, blocks))


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``; under ``vmap``, one element of the batch after the other.

    Unlike that of ``sequential_vmap``, the memory for results is not taken before the operands are there. XLA
    would take it once for all calls with results of one shape, keep it until the last, and copy it.
    """
    called = custom_vmap(function)

    @called.def_vmap
    def _rule(axis_size: int, in_batched: list[Any], *operands: Any) -> tuple[Any, Any]:
        def take(number: Array | int) -> list[Any]:
            return [
                jax.tree.map(lambda a, batched: a[number] if batched else a, *pair)
                for pair in zip(operands, in_batched, strict=True)
            ]

        def add(number: Array, results: Any) -> Any:
            return jax.tree.map(lambda all, one: all.at[number].set(one), results, called(*take(number)))

        zero, operands = lax.optimization_barrier((jnp.zeros(()), operands))
        like = jax.eval_shape(lambda: called(*take(0)))
        start = jax.tree.map(lambda a: jnp.full((axis_size, *a.shape), zero, a.dtype), like)
        return lax.fori_loop(0, axis_size, add, start), jax.tree.map(lambda _: True, like)

    return called


def divisor(count: int, limit: int) -> int:
    """The largest number up to ``limit``, but at least 1, into which ``count`` can be split evenly."""
    return max(size for size in range(1, max(min(limit, count), 1) + 1) if count % size == 0)


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
