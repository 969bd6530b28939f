"""What leads from one head of a cascade to the next."""

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.models.cascade import refine_boxes, scale_gradient

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
BOXES = np.array([[10, 20, 30, 60], [0, 0, 40, 40], [80, 80, 90, 90]], np.float32)
# Half a width to the right; twice as high; far out of the image.
DELTAS = np.array([[[5, 0, 0, 0]], [[0, 0, 0, 5 * np.log(2)]], [[100, 0, 0, 0]]], np.float32)


def _refine(boxes, deltas):
    return refine_boxes(boxes, deltas, jnp.array([100, 120]), weights=WEIGHTS)


def test_boxes_by_hand():
    expected = [[20, 20, 40, 60], [0, 0, 40, 60], [120, 80, 120, 90]]
    np.testing.assert_allclose(jax.jit(_refine)(BOXES, DELTAS), expected, atol=1e-4)


def test_boxes_have_no_gradient():
    for gradient in jax.jit(jax.grad(lambda *given: _refine(*given).sum(), argnums=(0, 1)))(BOXES, DELTAS):
        assert not gradient.any()


def test_only_the_gradient_is_scaled():
    x = jnp.array([1.0, -2.0, 0.1])
    value, gradient = jax.jit(jax.value_and_grad(lambda x: (scale_gradient(x, 1 / 3) ** 2).sum()))(x)
    assert float(value) == float((x**2).sum())
    np.testing.assert_allclose(gradient, 2 * x / 3, rtol=1e-6)
