"""What the machine can do at most, measured: products of matrices, and copies."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from benchmarks.timing import Here, Work, in_turns

_SIDE = {"cpu": 3072}  # of the matrices; elsewhere 8192
_COPIED_BYTES = {"cpu": 256 * 2**20}  # beyond all caches; elsewhere 2 GiB


def multiplications_peak(dtype: DTypeLike, turns: int = 5) -> float:
    """Additions and multiplications per second of a large product of matrices."""
    side = _SIDE.get(jax.default_backend(), 8192)
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    work = Work("product", lambda: jax.block_until_ready(product(matrix, matrix)))
    return 2 * side**3 / in_turns([Here(work)], turns)[0]


def copy_peak(turns: int = 5) -> float:
    """Bytes per second, read and written, of copying a large array."""
    size = _COPIED_BYTES.get(jax.default_backend(), 2 * 2**30)
    array = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)  # into the same memory: no new pages

    def run() -> None:
        nonlocal array
        array = jax.block_until_ready(copy(array))

    return 2 * size / in_turns([Here(Work("copy", run))], turns)[0]
