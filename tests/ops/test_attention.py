"""Attention by its definition, and windows by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.attention import attend, partition, unpartition


def test_attention_by_its_definition():
    rng = np.random.default_rng(0)
    h, w, n, d = 2, 3, 2, 4
    q, k, v = rng.normal(size=(3, 1, h, w, n, d))
    rows, columns = rng.normal(size=(h, h, d)), rng.normal(size=(w, w, d))
    wanted = np.zeros((1, h, w, n, d))
    for i, j, head in np.ndindex(h, w, n):
        query = q[0, i, j, head]
        logits = k[0, :, :, head] @ query / np.sqrt(d) + (rows[i] @ query)[:, None] + columns[j] @ query
        weights = np.exp(logits) / np.exp(logits).sum()
        wanted[0, i, j, head] = np.einsum("hw,hwd->d", weights, v[0, :, :, head])
    given = (jnp.asarray(x, jnp.float32) for x in (q, k, v, rows, columns))
    np.testing.assert_allclose(jax.jit(attend)(*given), wanted, atol=1e-6)


def test_windows_by_hand():
    """A map of 3 x 5 cells in windows of 2 x 2: two rows of three, filled with zeros."""
    x = jnp.arange(1, 16).reshape(1, 3, 5, 1).astype(jnp.float32)
    windows = partition(x, 2)[..., 0]
    assert windows.shape == (6, 2, 2)
    np.testing.assert_array_equal(windows[1], [[3, 4], [8, 9]])
    np.testing.assert_array_equal(windows[5], [[15, 0], [0, 0]])


@pytest.mark.parametrize(("size", "window"), [((3, 5), 2), ((4, 4), 2), ((2, 3), 7)])
def test_windows_make_the_map_again(size, window):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    np.testing.assert_array_equal(unpartition(partition(x, window), size), x)
