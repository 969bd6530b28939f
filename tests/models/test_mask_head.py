"""Mask heads: convolutional and fully connected, with sigmoids and with a softmax over the classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.models.mask_head import MaskHead, make_mask_head

CLASSES, CHANNELS, POOL = 3, 4, 2

KINDS = {
    "convolutional": {"mask_convs": 1, "mask_channels": 6},
    "fully connected": {"mask_convs": 0, "mask_fcs": 2, "mask_fc_channels": 6},
}


def make_head(seed=0, **fields):
    """A head with random weights and biases that are not small, so that every class wins somewhere."""
    head = make_mask_head(
        ModelConfig(**fields),
        CHANNELS,
        pool_size=POOL,
        num_classes=CLASSES,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(seed)
    graphdef, state = nnx.split(head)
    return nnx.merge(graphdef, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), state))


@pytest.fixture(scope="module")
def regions():
    return jnp.asarray(np.random.default_rng(1).normal(size=(6, POOL, POOL, CHANNELS)), jnp.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_softmax_is_over_the_logits_of_all_classes(kind, regions):
    """The logits of each class are those that a head of sigmoids with the same weights computes for it."""
    head = make_head(mask_loss="softmax", **KINDS[kind])
    sigmoids = make_head(mask_loss="softmax", **KINDS[kind])  # the background's logits are its first category
    sigmoids.softmax = False
    logits = np.stack([sigmoids(regions, jnp.full(6, c + 1)) for c in range(CLASSES + 1)], axis=-1)
    assert logits.shape == (6, 2 * POOL, 2 * POOL, CLASSES + 1)
    assert len(np.unique(logits.argmax(axis=-1))) == CLASSES + 1  # every class wins somewhere
    labels = jnp.array([1, 2, 3, 1, 2, 3])

    own = np.take_along_axis(logits, np.asarray(labels)[:, None, None, None], axis=-1)[..., 0]
    others = np.where(np.arange(CLASSES + 1) == labels[:, None, None, None], -np.inf, logits)
    np.testing.assert_allclose(head(regions, labels), own - others.max(axis=-1), rtol=1e-4, atol=1e-4)
    found = head.log_probabilities(regions, labels)
    assert found.shape == (6, 2 * POOL, 2 * POOL, 2)
    expected = np.stack([own, logits[..., 0]], axis=-1) - jax.nn.logsumexp(logits, axis=-1)[..., None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pasted_mask_is_where_the_category_wins(kind, regions):
    """At one pixel a cell, after the threshold .5; also where its probability is less than one half."""
    head = make_head(mask_loss="softmax", **KINDS[kind])
    of_class = [np.asarray(head(regions, jnp.full(6, label))) for label in range(CLASSES + 1)]
    winners = np.stack(of_class, axis=-1).argmax(axis=-1)  # only the winner's margin is positive
    size, count, unlikely = 2 * POOL, 0, 0
    for label in range(1, CLASSES + 1):
        masks = jax.nn.sigmoid(of_class[label])
        probabilities = np.exp(head.log_probabilities(regions, jnp.full(6, label))[..., 0])
        for region in range(6):
            pasted = paste_mask(
                np.asarray(masks[region]), np.array([0.0, 0, size, size], np.float32), (size, size)
            )
            bitmap = np.zeros((size, size), bool)
            pasted.write(bitmap)
            np.testing.assert_array_equal(bitmap, winners[region] == label)
            count += bitmap.sum()
            unlikely += (bitmap & (probabilities[region] < 0.5)).sum()
    assert count > unlikely > 0


def test_fully_connected_layers_by_hand():
    head = make_head(mask_convs=0, mask_fcs=2, mask_fc_channels=6)
    regions = np.random.default_rng(2).normal(size=(2, POOL, POOL, CHANNELS)).astype(np.float32)
    x = regions.reshape(2, -1)
    for fc in head.fcs:
        x = np.maximum(x @ np.asarray(fc.kernel[...]) + np.asarray(fc.bias[...]), 0)
    last = head.mask_fc_logits
    assert last.kernel.shape == (6, CLASSES * (2 * POOL) ** 2)
    logits = x @ np.asarray(last.kernel[...]) + np.asarray(last.bias[...])
    cells = (2 * POOL) ** 2
    found = head(jnp.asarray(regions), jnp.array([3, 1]))
    assert found.shape == (2, 2 * POOL, 2 * POOL)
    np.testing.assert_allclose(found[0].ravel(), logits[0, 2 * cells :], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1].ravel(), logits[1, :cells], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softmax", [False, True], ids=["sigmoid", "softmax"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind, softmax, regions):
    """Of all weights in a random direction, against the difference of the loss."""
    graphdef, state = nnx.split(make_head(mask_loss="softmax" if softmax else "sigmoid", **KINDS[kind]))
    labels = jnp.array([1, 2, 3, 1, 2, 3])

    @jax.jit
    def loss(state):
        head = nnx.merge(graphdef, state)
        return jnp.mean((head.log_probabilities if softmax else head)(regions, labels) ** 2)

    rng = np.random.default_rng(3)
    # Small, so that no ReLU switches.
    direction = jax.tree.map(lambda x: jnp.asarray(1e-3 * rng.normal(size=x.shape), x.dtype), state)
    ahead = loss(jax.tree.map(jnp.add, state, direction))
    behind = loss(jax.tree.map(jnp.subtract, state, direction))
    gradient = jax.jit(jax.grad(loss))(state)
    products = jax.tree.map(jnp.vdot, gradient, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), (ahead - behind) / 2, rtol=2e-2)


@pytest.mark.parametrize("fields", [{"mask_loss": "softmax"}, {}], ids=["softmax", "sigmoid"])
def test_sizes_of_the_last_layers(fields):
    """Of table 2e's heads on COCO: 80 categories, or one for all, and the background with a softmax."""

    def shapes(**more):
        config = ModelConfig(**fields, **more)
        head = nnx.eval_shape(
            lambda: make_mask_head(
                config, 256, pool_size=14, num_classes=80, dtype=jnp.float32, rngs=nnx.Rngs(0)
            )
        )
        return {".".join(map(str, path)): x.shape for path, x in nnx.to_flat_state(nnx.state(head))}

    background = 1 if fields else 0
    assert shapes()["mask_fcn_logits.kernel"] == (1, 1, 256, 80 + background)
    assert shapes(mask_agnostic=True)["mask_fcn_logits.kernel"] == (1, 1, 256, 1 + background)
    mlp = shapes(mask_convs=0, mask_fcs=2)
    assert mlp["fcs.0.kernel"] == (14 * 14 * 256, 1024) and mlp["fcs.1.kernel"] == (1024, 1024)
    assert mlp["mask_fc_logits.kernel"] == (1024, (80 + background) * 28 * 28)
    agnostic = shapes(mask_convs=0, mask_fcs=3, mask_agnostic=True)
    assert agnostic["mask_fc_logits.bias"] == ((1 + background) * 28 * 28,)
    assert len([name for name in agnostic if name.startswith("fcs.")]) == 6


def test_the_default_is_the_convolutional_head_of_sigmoids():
    head = make_head()
    assert isinstance(head, MaskHead) and not head.softmax and len(head.convs.layers) == 4
