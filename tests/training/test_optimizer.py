import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.training.optimizer import make_optimizer, make_schedule


def test_warm_up_then_steps():
    schedule = make_schedule(
        TrainConfig(
            learning_rate=0.4, warmup_steps=10, warmup_factor=0.1, decay_steps=(20, 30), decay_factor=0.5
        )
    )
    expected = {0: 0.04, 5: 0.22, 10: 0.4, 19: 0.4, 21: 0.2, 31: 0.1}
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-6, err_msg=f"step {step}")


def test_step_decay_begins_at_its_step():
    schedule = make_schedule(
        TrainConfig(learning_rate=1.0, warmup_steps=0, decay_steps=(20,), decay_factor=0.1)
    )
    np.testing.assert_allclose([schedule(19), schedule(20)], [1.0, 0.1], rtol=1e-6)


def test_neither_warm_up_nor_decay():
    schedule = make_schedule(TrainConfig(learning_rate=0.4, warmup_steps=0, decay_steps=()))
    np.testing.assert_allclose([schedule(0), schedule(10**6)], [0.4, 0.4])


def test_cosine_ends_at_zero():
    schedule = make_schedule(TrainConfig(learning_rate=0.4, warmup_steps=0, schedule="cosine", steps=100))
    np.testing.assert_allclose([schedule(0), schedule(50), schedule(100)], [0.4, 0.2, 0], atol=1e-7)


def test_unknown_schedule():
    with pytest.raises(ValueError, match=r"train.schedule is 'linear'; it must be 'step' or 'cosine'"):
        make_schedule(TrainConfig(schedule="linear"))


def _two_updates(config, params, gradients):
    optimizer = make_optimizer(config, params)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_sgd_as_torch_by_hand():
    config = TrainConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.5, warmup_steps=0, decay_steps=(99,))
    params = _two_updates(config, {"fc.kernel": jnp.array([1.0])}, {"fc.kernel": jnp.array([2.0])})
    # v = 2 + .5; w = 1 - .25 = .75; v = .9 * 2.5 + 2 + .375 = 4.625; w = .75 - .4625
    np.testing.assert_allclose(params["fc.kernel"], [0.2875], rtol=1e-6)


def test_norms_have_their_own_decay():
    config = TrainConfig(
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        warmup_steps=0,
        decay_steps=(99,),
    )
    names = ("conv1.kernel", "bn1.scale", "bn1.bias", "fc.bias")
    params = _two_updates(
        config, {name: jnp.ones(1) for name in names}, {name: jnp.zeros(1) for name in names}
    )
    decayed = {name: float(value[0]) for name, value in params.items()}
    np.testing.assert_allclose([decayed[name] for name in names], [0.81, 1.0, 1.0, 0.81], rtol=1e-6)


def test_clipping_scales_the_whole_gradient():
    config = TrainConfig(
        learning_rate=1.0, momentum=0.0, weight_decay=0.0, warmup_steps=0, decay_steps=(99,), clip_norm=2.5
    )
    gradients = {"a.kernel": jnp.array([3.0]), "b.kernel": jnp.array([4.0])}
    params = _two_updates(config, {name: jnp.zeros(1) for name in gradients}, gradients)
    np.testing.assert_allclose([params["a.kernel"][0], params["b.kernel"][0]], [-3.0, -4.0], rtol=1e-6)
