import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh, replicated
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.training.optimizer import make_optimizer, make_schedule, with_steps


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

    @jax.jit
    def compute(params, gradients):
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return jax.device_get(compute(params, gradients))


def test_sgd_as_torch_by_hand():
    config = TrainConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.5, warmup_steps=0, decay_steps=(99,))
    params = _two_updates(config, {"fc.kernel": np.array([1.0])}, {"fc.kernel": np.array([2.0])})
    # v = 2 + .5; w = 1 - .25 = .75; v = .9 * 2.5 + 2 + .375 = 4.625; w = .75 - .4625
    np.testing.assert_allclose(params["fc.kernel"], [0.2875], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_norms_have_their_own_decay(optimizer):
    config = TrainConfig(
        optimizer=optimizer,
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        warmup_steps=0,
        decay_steps=(99,),
    )
    names = ("conv1.kernel", "bn1.scale", "bn1.bias", "fc.bias")
    params = _two_updates(config, {name: np.ones(1) for name in names}, {name: np.zeros(1) for name in names})
    decayed = {name: float(value[0]) for name, value in params.items()}
    np.testing.assert_allclose([decayed[name] for name in names], [0.81, 1.0, 1.0, 0.81], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_factors_of_rate_and_decay(optimizer):
    """As groups of parameters in torch: a group's rate also scales the momentum and the decay."""
    config = TrainConfig(
        optimizer=optimizer,
        learning_rate=0.1,
        momentum=0.5,
        weight_decay=0.5,
        weight_decay_norm=0.25,
        warmup_steps=0,
        decay_steps=(99,),
        rate_factors=(("a.*", 0.5), ("*.bias", 2.0)),
        weight_decay_factors=(("*.bias", 0.0), ("bn.*", 2.0)),
    )
    names = ("a.kernel", "a.bias", "b.kernel", "bn.scale", "bn.bias")
    gradient = 0.0 if optimizer == "adamw" else 2.0
    found = _two_updates(config, dict.fromkeys(names, np.ones(1)), dict.fromkeys(names, np.full(1, gradient)))
    groups = {"a.kernel": (0.05, 0.5), "a.bias": (0.2, 0.0), "b.kernel": (0.1, 0.5)}
    groups |= {"bn.scale": (0.1, 0.5), "bn.bias": (0.2, 0.5)}
    for name, (rate, decay) in groups.items():
        if optimizer == "adamw":  # its decay alone
            wanted = (1 - rate * decay) ** 2
        else:
            momentum = 2 + decay
            weight = 1 - rate * momentum
            wanted = weight - rate * (0.5 * momentum + 2 + decay * weight)
        np.testing.assert_allclose(found[name], [wanted], rtol=1e-6, atol=1e-7, err_msg=name)


def test_factors_of_one_leave_the_optimizer_as_it_is():
    names = {"a.kernel": jnp.ones(1), "bn.scale": jnp.ones(1)}

    def program(**factors):
        optimizer = make_optimizer(TrainConfig(**factors), names)
        return jax.make_jaxpr(lambda x: optimizer.update(x, optimizer.init(x), x))(names)

    plain = str(program())
    assert str(program(rate_factors=(("*", 1.0),), weight_decay_factors=(("a.*", 1.0),))) == plain
    assert str(program(rate_factors=(("a.*", 0.5),))) != plain


def test_adamw_by_hand():
    config = TrainConfig(
        optimizer="adamw",
        learning_rate=0.1,
        momentum=0.5,
        adam_b2=0.75,
        weight_decay=0.5,
        warmup_steps=0,
        decay_steps=(99,),
    )
    optimizer = make_optimizer(config, {"fc.kernel"})
    params = {"fc.kernel": jnp.array([1.0])}
    state = optimizer.init(params)
    # m = 1, v = 1, both corrected to 2 and 4; w = 1 - .1 (2 / 2 + .5) = .85.
    # m = .5 + 4 = 4.5, corrected by .75 to 6; v = .75 + 16 = 16.75, corrected by .4375.
    # w = .85 - .1 (6 / sqrt(16.75 / .4375) + .5 * .85) = .85 - .1 (.969690 + .425)
    for gradient, expected in ((2.0, 0.85), (8.0, 0.710531)):
        updates, state = optimizer.update({"fc.kernel": jnp.array([gradient])}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["fc.kernel"], [expected], rtol=1e-6)


def test_adamw_is_optax_adamw_where_there_are_no_norms():
    config = TrainConfig(optimizer="adamw", learning_rate=0.01, weight_decay=0.1, warmup_steps=3, steps=5)
    keys = jax.random.split(jax.random.key(0), 3)
    params = {name: jax.random.normal(key, (4, 3)) for name, key in zip("abc", keys, strict=True)}
    ours, theirs = make_optimizer(config, params), optax.adamw(make_schedule(config), weight_decay=0.1)
    states = [ours.init(params), theirs.init(params)]
    results = [params, params]
    for step in range(4):
        for index, optimizer in enumerate((ours, theirs)):
            gradients = {name: jnp.sin(value + step) for name, value in results[index].items()}
            updates, states[index] = optimizer.update(gradients, states[index], results[index])
            results[index] = optax.apply_updates(results[index], updates)
    for name in params:
        np.testing.assert_array_equal(results[0][name], results[1][name])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_state_goes_on_bit_equal(name, tmp_path):
    """Moments and counts come back from a checkpoint, laid out by the shapes alone as the loop does."""
    config = TrainConfig(optimizer=name, learning_rate=0.1, warmup_steps=5, decay_steps=(99,))
    weights = {"fc.kernel": jnp.array([[1.0, -2.0]]), "bn.scale": jnp.array([0.5, 3.0])}
    optimizer = make_optimizer(config, weights)

    def step(weights, state):
        updates, state = optimizer.update(jax.tree.map(jnp.cos, weights), state, weights)
        return optax.apply_updates(weights, updates), state

    state = optimizer.init(weights)
    for _ in range(2):
        weights, state = step(weights, state)
    sharding = replicated(make_mesh(jax.devices()[:1]))
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        (weights, jax.eval_shape(optimizer.init, weights)),
    )
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, weights, state)
        restored = checkpoints.restore(2, *like)
    assert jax.tree.structure(restored) == jax.tree.structure((weights, state))
    for found, wanted in zip(
        jax.tree.leaves(step(*restored)), jax.tree.leaves(step(weights, state)), strict=True
    ):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match=r"train.optimizer is 'adam'; it must be 'sgd' or 'adamw'"):
        make_optimizer(TrainConfig(optimizer="adam"), {"fc.kernel"})


def test_clipping_scales_the_whole_gradient():
    config = TrainConfig(
        learning_rate=1.0, momentum=0.0, weight_decay=0.0, warmup_steps=0, decay_steps=(99,), clip_norm=2.5
    )
    gradients = {"a.kernel": np.array([3.0]), "b.kernel": np.array([4.0])}
    params = _two_updates(config, {name: np.zeros(1) for name in gradients}, gradients)
    np.testing.assert_allclose([params["a.kernel"][0], params["b.kernel"][0]], [-3.0, -4.0], rtol=1e-6)


@pytest.mark.parametrize(("epochs", "images", "steps"), [(0.0, 10, 90_000), (3.0, 10, 8), (0.1, 4, 1)])
def test_epochs_give_the_steps(epochs, images, steps):
    """Of 4 images each, rounded up, whether their gradient is added up over parts or not."""
    for parts in (1, 2):
        train = TrainConfig(epochs=epochs, batch_size=4, accumulate=parts)
        assert with_steps(Config(train=train), images=images).train.steps == steps
