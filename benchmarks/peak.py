"""Measured peaks of this machine: matmul FLOP/s and copy bandwidth."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mrcnn_jax.benchmarks.timing import Local, Workload, median_seconds

_SIDE = {"cpu": 3072}  # side of the matrices; elsewhere 8192
_COPIED_BYTES = {"cpu": 256 * 2**20}  # beyond all caches; elsewhere 2 GiB


def matmul_peak(dtype: DTypeLike, turns: int = 5) -> float:
    """FLOP/s of a large matmul."""
    side = _SIDE.get(jax.default_backend(), 8192)
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    matmul = jax.jit(jnp.matmul)
    workload = Workload("matmul", lambda: jax.block_until_ready(matmul(matrix, matrix)))
    return 2 * side**3 / median_seconds([Local(workload)], turns)[0]


def copy_peak(turns: int = 5) -> float:
    """Bytes read and written per second when copying a large array."""
    size = _COPIED_BYTES.get(jax.default_backend(), 2 * 2**30)
    array = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place, so that no new pages are needed

    def run() -> None:
        nonlocal array
        array = jax.block_until_ready(copy(array))

    return 2 * size / median_seconds([Local(Workload("copy", run))], turns)[0]
