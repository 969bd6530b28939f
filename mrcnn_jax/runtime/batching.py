"""Batching rules for loops under ``vmap``, where JAX's own would be slow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jaxtyping import Int32


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which ``vmap`` applies to one element of the batch at a time.

    Unlike with ``sequential_vmap``, the memory for results is not allocated before the operands are ready.
    Otherwise XLA would allocate it once for all calls with results of the same shape, keep it until the last
    of them, and copy it.
    """
    called = custom_vmap(jax.jit(function))  # jitted, it is traced once

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


def merged(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of one element, given one of batches: ``vmap`` merges its axis into the batch's.

    The first axis of all arrays that ``function`` takes and returns is that of a batch.
    """
    called = custom_vmap(jax.jit(function))

    @called.def_vmap
    def _rule(axis_size: int, in_batched: list[Any], *operands: Any) -> tuple[Any, Any]:
        def merge(array: Array, batched: bool) -> Array:
            array = array if batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            return array.reshape(-1, *array.shape[2:])

        results = called(*jax.tree.map(merge, list(operands), in_batched))
        apart = jax.tree.map(lambda a: a.reshape(axis_size, -1, *a.shape[1:]), results)
        return apart, jax.tree.map(lambda _: True, apart)

    def of_one(*operands: Any) -> Any:
        results = called(*jax.tree.map(lambda a: a[None], operands))
        return jax.tree.map(lambda a: a[0], results)

    return of_one


@custom_vmap
def batch_max(values: Int32[Array, "..."]) -> Int32[Array, ""]:
    """The maximum (at least 0); under ``vmap``, of the whole batch.

    As a loop's bound, it is shared by the images of a batch. With a bound per image, ``vmap`` would select
    between the loop's whole old and new state at every step.
    """
    return jnp.max(values, initial=0)


@batch_max.def_vmap
def _batch_max_rule(axis_size: int, in_batched: list[bool], values: Array) -> tuple[Array, bool]:
    return batch_max(values.reshape(-1)), False
