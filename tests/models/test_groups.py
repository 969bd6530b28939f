import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.models.groups import apply_in_groups

VALID = np.array([[True, True, True] + [False] * 5, [True] + [False] * 7])  # two images, groups of two rows


def regions():
    return jnp.asarray(np.random.default_rng(0).standard_normal((16, 2, 2, 3)).astype(np.float32))


def test_valid_regions_are_as_without_groups():
    weights = jnp.arange(1.0, 4.0)

    def loss(weights, in_groups):
        def head(x):
            return jnp.tanh(x @ weights)

        found = apply_in_groups(head, regions(), jnp.asarray(VALID)) if in_groups else head(regions())
        return jnp.sum(jnp.where(VALID.reshape(-1, 1, 1), found, 0.0) ** 2), found

    gradient = jax.value_and_grad(loss, has_aux=True)
    (found, outputs), of_weights = gradient(weights, True)
    (wanted, whole), of_whole = gradient(weights, False)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(of_weights, of_whole, rtol=1e-5)
    rows = np.arange(16) % 8 < 4  # the first two groups, of which one image or both have rows
    np.testing.assert_allclose(outputs[rows], whole[rows], rtol=1e-6)
    assert not np.asarray(outputs[~rows]).any()


def test_groups_without_regions_are_not_computed():
    computed = []

    def head(x):
        jax.debug.callback(lambda: computed.append(len(x)))
        return x

    jax.block_until_ready(apply_in_groups(head, regions(), jnp.asarray(VALID)))
    jax.effects_barrier()
    assert computed == [4, 4]


def test_rows_that_four_groups_cannot_share_are_done_together():
    x = regions()[:6]
    np.testing.assert_array_equal(apply_in_groups(lambda x: x + 1, x, jnp.zeros((1, 6), bool)), x + 1)
