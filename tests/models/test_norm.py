import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.models.norm import Frozen, FrozenBatchNorm, make_norm


def test_frozen_batch_norm_by_hand():
    norm = FrozenBatchNorm(1, epsilon=1.0, dtype=jnp.float32)
    norm.scale[...], norm.bias[...] = jnp.array([4.0]), jnp.array([0.5])
    norm.mean[...], norm.var[...] = jnp.array([10.0]), jnp.array([3.0])
    # (x - 10) / sqrt(3 + 1) * 4 + 0.5
    np.testing.assert_allclose(norm(jnp.array([[[[11.0]]]])), [[[[2.5]]]])


def test_frozen_batch_norm_is_never_a_parameter():
    state = nnx.state(FrozenBatchNorm(2, epsilon=1e-5, dtype=jnp.float32))
    assert {type(variable) for _, variable in nnx.to_flat_state(state)} == {Frozen}


def test_batch_norm_moves_running_statistics_a_tenth_of_the_way():
    norm = make_norm("batch", 1, epsilon=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    # The batch has mean 10 and variance 4; the running statistics begin as 0 and 1.
    np.testing.assert_allclose(norm(jnp.array([[[[8.0], [12.0]]]])), [[[[-1.0], [1.0]]]], rtol=1e-6)
    np.testing.assert_allclose(norm.mean[...], [1.0], rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], [0.9 + 0.4], rtol=1e-6)


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (16, 8), (72, 4)])
def test_groups_have_at_least_two_channels(channels, groups):
    norm = make_norm("group", channels, epsilon=1e-5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert norm.num_groups == groups


def test_layer_norm_by_hand():
    norm = make_norm("layer", 4, epsilon=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    cell = jnp.array([1.0, 1.0, 3.0, 3.0]).reshape(1, 1, 1, 4)
    nothing = jnp.zeros((1, 1, 1, 1), bool)
    np.testing.assert_allclose(norm(cell, mask=nothing).ravel(), [-1, -1, 1, 1])


def test_unknown_kind():
    kinds = "'frozen_batch', 'batch', 'group' or 'layer'"
    with pytest.raises(ValueError, match=f"norm is 'instance'; it must be {kinds}"):
        make_norm("instance", 8, epsilon=1e-5, dtype=jnp.float32, rngs=nnx.Rngs(0))
