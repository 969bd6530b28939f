import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.models import valid_regions
from mrcnn_jax.models.valid_regions import apply_to_valid


@pytest.fixture
def regions():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 12, 3, 3, 2), np.float32))


def _head(weights, regions, labels):
    return jnp.sin(regions @ weights).sum(axis=(1, 2))[:, None] * labels[:, None]


@pytest.fixture(autouse=True)
def blocks_of_four(monkeypatch):
    monkeypatch.setattr(valid_regions, "BLOCK", 4)


@pytest.mark.parametrize("count", [12, 11])  # three blocks of four, with or without a row of padding
def test_outputs_and_gradients_match_the_plain_head_on_valid_regions(regions, count):
    regions = regions[:, :count]
    weights, labels = jnp.array([0.5, -1.0]), jnp.arange(2 * count).reshape(2, count)
    valid = jnp.arange(count) < jnp.array([[2], [5]])

    def total(weights, regions, head):
        outputs = head(weights, regions)
        return jnp.sum(jnp.where(valid[..., None], outputs, 0) ** 2), outputs

    def in_blocks(weights, regions):
        return apply_to_valid(_head, weights, valid, regions, labels)

    def at_once(weights, regions):
        outputs = _head(weights, regions.reshape(-1, 3, 3, 2), labels.reshape(-1))
        return outputs.reshape(2, count, -1)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True), static_argnums=2)
    gradients, outputs = gradient(weights, regions, in_blocks)
    expected_gradients, expected = gradient(weights, regions, at_once)
    np.testing.assert_allclose(outputs[:, :8], expected[:, :8], rtol=1e-5)  # two blocks have valid regions
    np.testing.assert_array_equal(outputs[:, 8:], 0)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_blocks_without_a_valid_region_are_not_computed(regions):
    calls = []

    def head(_, rows):
        jax.debug.callback(lambda: calls.append(1))
        return rows

    valid = jnp.zeros((2, 12), bool).at[1, 9].set(True)
    jax.block_until_ready(jax.jit(lambda regions: apply_to_valid(head, None, valid, regions))(regions))
    jax.effects_barrier()
    assert len(calls) == 1


def test_no_activations_are_saved_for_the_gradient(regions):
    """Saved activations would show up among the residuals of the forward loop."""

    def head(_, rows):
        return jnp.exp(jnp.sin(rows))

    def total(regions):
        return apply_to_valid(head, None, jnp.ones((2, 12), bool), regions).sum()

    kept = jax.eval_shape(lambda regions: jax.vjp(total, regions)[1], regions)
    sizes = [leaf.size for leaf in jax.tree.leaves(kept)]
    assert sum(size >= regions.size for size in sizes) == 1  # the regions themselves


@pytest.mark.parametrize(("count", "size"), [(3, 3), (4, 4), (10, 4), (11, 4), (12, 4), (13, 4), (25, 4)])
def test_blocks_are_as_large_and_as_few_as_can_be(count, size):
    shapes = []

    def head(_, rows):
        shapes.append(rows.shape)
        return rows

    outputs = apply_to_valid(head, None, jnp.ones((2, count), bool), jnp.ones((2, count, 5)))
    assert outputs.shape == (2, count, 5) and set(shapes) == {(2 * size, 5)}
