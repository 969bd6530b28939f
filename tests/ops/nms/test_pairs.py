import jax
import numpy as np
import pytest

from mrcnn_jax.ops.nms.pairs import first_true

_first_true = jax.jit(first_true, static_argnums=1)


def test_first_true_by_hand():
    mask = np.array([False, True, True, False, True])
    np.testing.assert_array_equal(_first_true(mask, 2), [1, 2])
    np.testing.assert_array_equal(_first_true(mask, 3), [1, 2, 4])


@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_first_true_equals_numpys_nonzero(length, density):
    mask = np.random.default_rng(length).random(length) < density
    found = np.asarray(_first_true(mask, 200))
    (expected,) = np.nonzero(mask)
    np.testing.assert_array_equal(found[: len(expected)], expected[:200])
    assert ((found >= 0) & (found < length)).all()
