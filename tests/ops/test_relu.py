import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.relu import relu


def test_values_and_gradients_by_hand():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    value, pull_back = jax.vjp(relu, x)
    np.testing.assert_array_equal(value, [0, 0, 0, 3])
    np.testing.assert_array_equal(pull_back(jnp.array([5.0, 6.0, 7.0, 8.0]))[0], [0, 0, 0, 8])


def test_the_dtype_is_kept():
    assert relu(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_barrier_survives_compilation_on_a_cpu():
    """With ``compiler_options``; without them XLA removes the barrier too early."""
    program = jax.jit(lambda x: relu(x) + 1).lower(jnp.ones(2)).compile()
    assert "opt-barrier" in program.as_text()


@pytest.mark.parametrize(("platform", "barrier"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_has_a_barrier(platform, barrier):
    text = jax.jit(relu).trace(jnp.ones(2)).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in text) == barrier
