import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.models.drop_path import drop_path


def test_drop_path_keeps_the_mean():
    keys = jax.random.split(jax.random.key(0), 4000)
    x = jnp.ones((4000, 1, 1, 1))
    found = drop_path(x, keys, 0, rate=0.25).ravel()
    assert set(np.unique(found)) == {np.float32(0), np.float32(4 / 3)}
    assert found.mean() == pytest.approx(1, abs=0.03)
    other = drop_path(x, keys, 1, rate=0.25).ravel()
    assert np.mean((found > 0) & (other > 0)) == pytest.approx(0.75**2, abs=0.03)  # independent branches
    np.testing.assert_array_equal(drop_path(x, None, 0, rate=0.25), x)
