"""Sigmoid cross-entropy of a box head, and the federated loss, compared with Detectron2's."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import Config, ModelConfig, TrainConfig
from mrcnn_jax.config.io import validate
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training import losses
from mrcnn_jax.training.federated import federated_classes

STORED = dict(np.load(Path(__file__).parents[1] / "fixtures" / "detectron2_lvis.npz"))
CASES = "plain", "federated", "crowded", "background"

draw = jax.jit(federated_classes, static_argnames="count")


@partial(jax.jit, static_argnames="scores")
def class_loss(logits, labels, assignment, classes=None, *, scores="sigmoid"):
    boxes = jnp.zeros((len(logits), 4)) + jnp.array([0.0, 0, 10, 10])
    deltas = jnp.zeros((len(logits), 1, 4))
    settings = {"box_weights": (1.0, 1.0, 1.0, 1.0), "beta": 0.0, "scores": scores, "classes": classes}
    found = losses.box_loss(logits, deltas, boxes, assignment, labels, boxes, **settings)
    return found.means()["box_class"]


def test_by_hand():
    """Two regions of category 2 of three, and of the background; the third region is not sampled."""
    logits = np.array([[9.0, 1.0, 2.0, -1.0], [-9.0, 0.0, 0.0, 3.0], [5.0] * 4], np.float32)
    assignment = np.array([Assignment.POSITIVE, Assignment.NEGATIVE, Assignment.IGNORE])
    labels = np.array([2, 0, 0])

    def softplus(x):
        return np.log1p(np.exp(x))

    first, second = [softplus(1), softplus(-2), softplus(-1)], [np.log(2), np.log(2), softplus(3)]
    found = class_loss(logits, labels, assignment)
    np.testing.assert_allclose(found, (sum(first) + sum(second)) / 2, rtol=1e-6)
    kept = np.array([[True, True, False], [False, True, True], [True] * 3])
    found = class_loss(logits, labels, assignment, kept)
    np.testing.assert_allclose(found, (sum(first[:2]) + sum(second[1:])) / 2, rtol=1e-6)


def ours(case):
    """The logits with the background first, the labels, and what the regions are."""
    logits, labels = STORED[f"{case}/logits"], STORED[f"{case}/labels"]
    count = logits.shape[1] - 1
    labels = np.where(labels == count, 0, labels + 1)
    assignment = np.where(labels > 0, Assignment.POSITIVE, Assignment.NEGATIVE)
    return np.roll(logits, 1, axis=1), labels, assignment


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_detectron2s(case):
    logits, labels, assignment = ours(case)
    classes = np.tile(STORED[f"{case}/classes"], (len(logits), 1))
    loss, gradient = jax.value_and_grad(class_loss)(logits, labels, assignment, classes)
    np.testing.assert_allclose(loss, STORED[f"{case}/loss"], rtol=1e-6)
    expected = np.roll(STORED[f"{case}/gradient"], 1, axis=1)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    assert expected.any() and not expected[:, 0].any()


@pytest.mark.parametrize("case", CASES[1:])
def test_as_many_categories_are_kept_as_in_detectron2(case):
    _, labels, _ = ours(case)
    sampled = np.ones(len(labels), bool)
    theirs = STORED[f"{case}/classes"]
    for seed in range(20):
        found = np.asarray(draw(jax.random.key(seed), labels, sampled, STORED["weights"], count=6))
        assert found.sum() == theirs.sum()
        assert found[labels[labels > 0] - 1].all()


def test_categories_are_drawn_as_often_as_in_detectron2():
    _, labels, _ = ours("federated")
    keys = jax.random.split(jax.random.key(0), 20_000)
    each = partial(federated_classes, labels=jnp.array(labels), sampled=jnp.ones(len(labels), bool), count=6)
    found = jax.jit(jax.vmap(lambda key: each(key, weights=jnp.array(STORED["weights"]))))(keys).mean(axis=0)
    np.testing.assert_allclose(found, STORED["sampled"], atol=0.016)  # 3.5 standard deviations of each


def test_no_draw_repeats_and_weights_of_0_are_never_drawn():
    weights = np.array([1.0, 0.0, 5.0, 2.0, 0.0], np.float32)
    nothing, no = np.zeros(2, int), np.zeros(2, bool)
    for seed in range(10):
        found = draw(jax.random.key(seed), nothing, no, weights, count=2)
        assert found.sum() == 2 and not found[1] and not found[4]
    assert draw(jax.random.key(0), nothing, no, weights, count=9).tolist() == [True, False, True, True, False]
    # Regions that are not sampled are not there; a category without weight may be an image's own.
    found = draw(jax.random.key(0), np.array([2, 4]), np.array([True, False]), weights, count=1)
    assert found.tolist() == [False, True, False, False, False]


def test_detectron2_has_no_other_bias_with_sigmoids():
    assert not STORED["initial_bias"].any()  # as box_head.py


def test_settings():
    config = Config(train=TrainConfig(federated_classes=50))
    with pytest.raises(
        ValueError, match=r"train\.federated_classes is 50; must be 0 unless model\.box_scores"
    ):
        validate(config)
    validate(dataclasses.replace(config, model=ModelConfig(box_scores="sigmoid")))
    with pytest.raises(
        ValueError, match=r"model\.box_scores is 'sigmoid'; must be 'softmax' without the box"
    ):
        validate(Config(model=ModelConfig(box=False, mask=False, box_scores="sigmoid")))
