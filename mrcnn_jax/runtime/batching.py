"""Batching rules: what ``vmap`` does to loops, where its own rule would be slow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jaxtyping import Int32


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
