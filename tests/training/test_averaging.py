"""The moving average of the weights, in steps of a model of one number and through a checkpoint."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.distributed.sharding import make_mesh, replicated
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.training.averaging import decay_at
from mrcnn_jax.training.state import restore_state, training_items
from mrcnn_jax.training.step import compile_step, make_state
from tests.training.test_step import OneWeight


def test_the_decay_warms_up():
    found = [float(decay_at(jnp.array(step), 0.99)) for step in (0, 8, 90, 890, 10**6)]
    assert found == pytest.approx([0.1, 0.5, 0.91, 0.99, 0.99])


@pytest.fixture
def one_weight(tiny_config, monkeypatch):
    """``one_weight(ema_decay)``: config, blueprint, the first state and the step of SGD on the loss w."""

    def compute_losses(model, batch, key, config, image_counts):
        model.count[...] += 10
        return {"linear": model.weight[0]}

    monkeypatch.setattr("mrcnn_jax.training.step.compute_losses", compute_losses)

    def make(ema_decay):
        settings = {"learning_rate": 1.0, "warmup_steps": 0, "decay_steps": (), "momentum": 0.5}
        settings |= {"weight_decay": 0.0, "ema_decay": ema_decay}
        config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, **settings))
        graphdef, variables = nnx.split(OneWeight())
        blueprint = Blueprint(config.model, 1, 0, graphdef, dict(nnx.to_flat_state(variables)), frozenset())
        weights = {"weight": jnp.array([2.0]), "frozen": jnp.array([3.0]), "count": jnp.array([0.0])}
        mesh = make_mesh(jax.devices()[:1])
        state = jax.device_put(make_state(blueprint, weights, config), replicated(mesh))
        return config, blueprint, state, compile_step(blueprint, config, mesh)

    return make


def test_by_hand(one_weight, tiny_batch):
    """The weight goes from 2 to 1, -.5 and -2.25, the statistic to 10, 20 and 30; the third decay is .2."""
    _, _, state, take_step = one_weight(0.2)
    expected = [
        (0.1 * 2 + 0.9 * 1, 0.9 * 10),
        (2 / 11 * 1.1 + 9 / 11 * -0.5, 2 / 11 * 9 + 9 / 11 * 20),
    ]
    expected += [(0.2 * expected[1][0] + 0.8 * -2.25, 0.2 * expected[1][1] + 0.8 * 30)]
    for weight, count in expected:
        state, _ = take_step(state, tiny_batch)
        found = {name: float(value[0]) for name, value in state.weights().items()}
        assert found == pytest.approx({"weight": weight, "frozen": 3, "count": count})
    assert float(state.params["weight"][0]) == -2.25 and float(state.batch_stats["count"][0]) == 30


def test_a_checkpoint_has_the_average_for_inference_and_the_rest_to_go_on_bit_equal(
    one_weight, tiny_batch, tmp_path
):
    config, blueprint, state, take_step = one_weight(0.7)
    for _ in range(2):
        state, _ = take_step(state, tiny_batch)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, state.weights(), training_items(state))
        restored = restore_state(checkpoints, 2, blueprint, config, take_step.mesh)
    _, weights = load_weights(tmp_path)
    for name, value in state.average.items():
        np.testing.assert_array_equal(weights[name], value)
    assert float(weights["weight"][0]) != float(state.params["weight"][0])
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for found, wanted in zip(*map(jax.tree.leaves, (restored, state)), strict=True):
        assert found.dtype == wanted.dtype
        if not jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(found, wanted)
    after = [jax.device_get(take_step(begin, tiny_batch)[0].weights()) for begin in (restored, state)]
    assert after[0] == after[1]


def test_without_it_there_is_none(one_weight, tiny_batch):
    _, _, state, take_step = one_weight(0.0)
    assert state.average is None and set(training_items(state)) == {"step", "opt_state"}
    state, _ = take_step(state, tiny_batch)
    assert state.average is None and float(state.weights()["weight"][0]) == 1
