"""Barriers that keep XLA from fusing or inlining where that costs time or memory, or fails."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from mrcnn_jax.runtime.platforms import by_platform, platform


def cpu_barrier(values: Any) -> Any:
    """``values`` behind an optimization barrier on a CPU: all are in memory before any of them is used."""
    return by_platform({"cpu": lax.optimization_barrier, "default": lambda values: values}, values)


def tpu_barrier(values: Any) -> Any:
    """``values`` behind an optimization barrier on the TPUs of a mesh."""
    return lax.optimization_barrier(values) if platform() == "tpu" else values


def outlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` jitted and, on a CPU, kept as a separate XLA computation inside a larger program.

    XLA compares each operation of a computation with every other one to find what can run concurrently. With
    12,000 operations that takes several seconds, even when the program comes from the compilation cache.
    """

    @jax.jit
    @functools.wraps(function)
    def called(*operands: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # the functions that it calls may be inlined into it
            return function(*operands)

    @functools.wraps(function)
    def call(*operands: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return called(*operands)

    return call
