import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.models import valid_regions
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.norm import Frozen
from mrcnn_jax.models.variables import Blueprint, make_blueprint
from mrcnn_jax.training import loop
from mrcnn_jax.training.metrics import STAGES
from mrcnn_jax.training.step import compile_step, make_state


@pytest.fixture(scope="module")
def first_state(tiny_blueprint, tiny_weights, tiny_config):
    """``first_state()``: the first state, of arrays of its own, as a step consumes them."""
    begin = jax.jit(partial(make_state, tiny_blueprint, config=tiny_config))
    return lambda: begin(jax.tree.map(np.array, tiny_weights))


@pytest.fixture(scope="module")
def compiled(tiny_blueprint, tiny_config, shared_programs):
    """``compiled(devices)``: the step for that many, the same one in every call."""
    return lambda devices: loop.compile_step(tiny_blueprint, tiny_config, make_mesh(jax.devices()[:devices]))


@pytest.fixture(scope="module")
def take_steps(first_state, compiled):
    """``take_steps(devices, batches)``: states and metrics after each."""

    def run(devices, batches):
        take_step = compiled(devices)
        mesh = take_step.mesh
        state = jax.device_put(first_state(), replicated(mesh))
        history = []
        for batch in batches:
            state, metrics = take_step(state, jax.device_put(batch, batch_sharding(mesh)))
            history.append(jax.device_get((state.replace(key=None), metrics)))
        return history

    return run


@pytest.fixture(scope="module")
def two_steps(take_steps, tiny_batch):
    return take_steps(1, [tiny_batch, tiny_batch])


LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box", "mask", "keypoint")


def test_first_losses_are_those_of_guessing(two_steps):
    """Untrained: two outcomes a cell of objectness and mask, one of 5 classes, one of 56 x 56 cells."""
    _, metrics = two_steps[0]
    assert metrics["rpn_objectness"] == pytest.approx(np.log(2), rel=0.02)
    assert metrics["mask"] == pytest.approx(np.log(2), rel=0.02)
    assert metrics["box_class"] == pytest.approx(np.log(5), rel=0.2)
    assert metrics["keypoint"] == pytest.approx(np.log(56 * 56), rel=0.1)
    assert metrics["loss"] == pytest.approx(sum(metrics[name] for name in LOSSES), rel=1e-5)
    assert {name for names in STAGES.values() for name in names} == set(LOSSES)  # so a line has them all


def test_what_a_step_changes(two_steps, tiny_weights, tiny_blueprint):
    state, _ = two_steps[-1]
    params, frozen, batch_stats = tiny_blueprint.split(tiny_weights)
    assert int(state.step) == 2
    unchanged = [name for name in params if np.array_equal(state.params[name], params[name])]
    assert not unchanged
    for name, value in frozen.items():
        np.testing.assert_array_equal(state.frozen[name], value)
    assert all(not np.array_equal(state.batch_stats[name], value) for name, value in batch_stats.items())


def test_frozen_arrays_have_no_optimizer_state(two_steps, tiny_blueprint, tiny_weights):
    state, _ = two_steps[0]
    params, _, _ = tiny_blueprint.split(tiny_weights)
    momentum = [leaf for leaf in jax.tree.leaves(state.opt_state) if np.ndim(leaf)]
    assert sum(x.size for x in momentum) == sum(x.size for x in params.values())


def test_eight_devices_give_the_numbers_of_one(two_steps, take_steps, tiny_batch):
    on_eight = take_steps(8, [tiny_batch, tiny_batch])
    for (_, wanted), (_, found) in zip(two_steps, on_eight, strict=True):
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, err_msg=name)
    for name, value in two_steps[-1][0].params.items():
        np.testing.assert_allclose(on_eight[-1][0].params[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_only_collectives_are_all_reduces_outside_of_loops(
    first_state, tiny_batch, tiny_blueprint, tiny_config, monkeypatch
):
    monkeypatch.setattr(valid_regions, "BLOCK", 2)  # so that there is a loop over blocks
    take_step = compile_step(tiny_blueprint, tiny_config, make_mesh(jax.devices()))
    text = take_step.lower(first_state(), tiny_batch).compile().as_text()
    assert len(jax.devices()) == 8
    assert set(collectives(text)) == {"all-reduce"}
    assert len(list(_loop_bodies(text))) > 5
    assert not collectives("".join(_loop_bodies(text)))


def collectives(text):
    return re.findall(r" ((?:all-|collective-|reduce-scatter|ragged-)[\w-]*)\(", text)


def _loop_bodies(text):
    """The HLO of every computation that some loop runs."""
    pattern = r"^(?:ENTRY )?%([\w.-]+) \(.*?\) -> [^\n]* \{\n(.*?)^\}"
    computations = dict(re.findall(pattern, text, re.MULTILINE | re.DOTALL))
    names, seen = re.findall(r"body=%([\w.-]+)", text), set()
    while names:
        name = names.pop()
        if name not in seen:
            seen.add(name)
            yield computations[name]
            names += [name for name in re.findall(r"%([\w.-]+)", computations[name]) if name in computations]


def test_no_recompilation_after_the_first_step(tiny_batch, take_steps):
    take_steps(1, [tiny_batch])
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        messages = []
        patch.setattr(
            "jax._src.interpreters.pxla.logger.log", lambda level, message, *a: messages.append(message)
        )
        take_steps(1, [tiny_batch, tiny_batch.replace(images=tiny_batch.images[::-1])])
    assert not messages


def test_one_compilation_for_each_canvas_and_a_warning_of_others(
    tiny_blueprint, tiny_config, tiny_batch, first_state, monkeypatch
):
    compiled = []

    def no_step(state, batch, **_):
        compiled.append(batch.images.shape)
        return state, {}

    monkeypatch.setattr("mrcnn_jax.training.step.train_step", no_step)
    data = dataclasses.replace(tiny_config.data, canvases=((64, 64), (64, 48)))
    config = dataclasses.replace(tiny_config, data=data)
    mesh = make_mesh(jax.devices()[:1])
    step = compile_step(tiny_blueprint, config, mesh)
    state = jax.device_put(first_state(), replicated(mesh))
    for batch in (tiny_batch, tiny_batch.replace(images=tiny_batch.images[:, :, :48])) * 2:
        state, _ = step(state, batch)
    assert compiled == [(8, 64, 64, 3), (8, 64, 48, 3)]
    with pytest.warns(UserWarning, match="the training step is .* images are 32x64, which is not in"):
        step(state, tiny_batch.replace(images=tiny_batch.images[:, :32]))


def test_invalid_rows_change_nothing(two_steps, take_steps, tiny_batch):
    gt = tiny_batch.gt
    rubbish = gt.replace(
        boxes=np.where(gt.valid[..., None], gt.boxes, np.float32(7e4)),
        labels=np.where(gt.valid, gt.labels, 2),
        crowd=~gt.valid,
        masks=np.where(gt.valid[..., None, None], gt.masks, 1).astype(np.uint8),
        keypoints=np.where(gt.valid[..., None, None], gt.keypoints, np.float32(np.nan)),
    )
    (_, found), *_ = take_steps(1, [tiny_batch.replace(gt=rubbish)])
    for name in LOSSES:
        assert found[name] == two_steps[0][1][name], name


def test_images_without_objects_and_with_crowds_only_are_finite(take_steps, tiny_batch):
    none = tiny_batch.replace(gt=tiny_batch.gt.replace(valid=np.zeros((8, 4), bool)))
    crowds = tiny_batch.replace(gt=tiny_batch.gt.replace(crowd=np.ones((8, 4), bool)))
    for batch in (none, crowds):
        ((state, metrics),) = take_steps(1, [batch])
        assert metrics["box"] == metrics["mask"] == metrics["keypoint"] == 0
        assert all(np.isfinite(value) for value in metrics.values())
        assert all(np.isfinite(value).all() for value in state.params.values())


def test_an_object_without_a_mask_adds_nothing_to_the_mask_loss(two_steps, take_steps, tiny_batch):
    """Its row is all zeros; were it learnt, "nothing anywhere" would be the target."""
    masks = np.array(tiny_batch.gt.masks)
    masks[1:] = 0
    (_, some), *_ = take_steps(1, [tiny_batch.replace(gt=tiny_batch.gt.replace(masks=masks))])
    (_, none), *_ = take_steps(1, [tiny_batch.replace(gt=tiny_batch.gt.replace(masks=np.zeros_like(masks)))])
    assert some["mask"] == pytest.approx(two_steps[0][1]["mask"], rel=0.02)
    assert none["mask"] == 0
    assert none["box"] == two_steps[0][1]["box"]


def test_a_batch_is_learnt_when_seen_again_and_again(take_steps, tiny_batch):
    filled = tiny_batch.replace(gt=tiny_batch.gt.replace(masks=np.ones_like(tiny_batch.gt.masks)))
    history = take_steps(1, [filled] * 12)
    for name in ("rpn_objectness", "box_class", "mask", "keypoint"):
        assert history[-1][1][name] < 0.95 * history[0][1][name], name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "backbone_depth": 50,
                "backbone_norm": "frozen_batch",
                "backbone_frozen_stages": 2,
                "keypoint": False,
            },
            id="frozen_batch, no keypoints",
            marks=pytest.mark.slow,  # tests/parity trains such models
        ),
        pytest.param(
            {"backbone_norm": "group", "backbone_frozen_stages": 0, "mask": False},
            id="group, no masks",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_norms_and_heads(tiny_config, tiny_batch, changes):
    config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, **changes))
    blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
    gt = tiny_batch.gt.replace(
        masks=tiny_batch.gt.masks if config.model.mask else None,
        keypoints=tiny_batch.gt.keypoints if config.model.keypoint else None,
    )
    weights = blueprint.initialize(jax.random.key(1))
    params, frozen, _ = jax.device_get(blueprint.split(weights))
    step = compile_step(blueprint, config, make_mesh(jax.devices()[:1]))
    state, metrics = step(make_state(blueprint, weights, config), tiny_batch.replace(gt=gt))
    assert ("mask" in metrics, "keypoint" in metrics) == (config.model.mask, config.model.keypoint)
    assert all(np.isfinite(value) for value in metrics.values())
    unchanged = [name for name in params if np.array_equal(state.params[name], params[name])]
    assert not unchanged
    for name, value in frozen.items():
        np.testing.assert_array_equal(state.frozen[name], value, err_msg=name)


@pytest.mark.slow
def test_bfloat16_computes_and_keeps_float32(tiny_config, first_state, tiny_batch, two_steps):
    config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, dtype="bfloat16"))
    blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
    mesh = make_mesh(jax.devices()[:1])
    state, metrics = compile_step(blueprint, config, mesh)(first_state(), tiny_batch)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    for name in LOSSES:
        assert metrics[name].dtype == jnp.float32
        np.testing.assert_allclose(metrics[name], two_steps[0][1][name], rtol=0.15, err_msg=name)


class OneWeight(MaskRCNN):
    """A model of one number, besides which another is frozen, and a third counts."""

    def __init__(self):
        self.weight = nnx.Param(jnp.array([2.0]))
        self.frozen = Frozen(jnp.array([3.0]))
        self.count = nnx.BatchStat(jnp.array([0.0]))
        self.deterministic = True


def test_two_steps_by_hand(tiny_config, tiny_batch, monkeypatch):
    """Of the loss w^2 / 2 + 3 w, its gradient clipped to 4, with momentum and decay; the rate halves."""
    given_back = []

    def compute_losses(model, batch, key, config, image_counts):
        assert not model.deterministic
        model.count[...] += batch.images.shape[0]
        weight, noise = model.weight[0], jax.random.uniform(key)
        return {"square": weight**2 / 2, "linear": model.frozen[0] * weight, "noise": noise}

    monkeypatch.setattr("mrcnn_jax.training.step.compute_losses", compute_losses)
    monkeypatch.setattr("mrcnn_jax.training.step.trim_heap", lambda: given_back.append(True))
    settings = {"learning_rate": 0.1, "warmup_steps": 0, "decay_steps": (1,), "decay_factor": 0.5, "seed": 3}
    settings |= {"momentum": 0.9, "weight_decay": 0.5, "clip_norm": 4.0}
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, **settings))
    graphdef, variables = nnx.split(OneWeight())
    blueprint = Blueprint(config.model, 1, 0, graphdef, dict(nnx.to_flat_state(variables)), frozenset())
    weights = {"weight": jnp.array([2.0]), "frozen": jnp.array([3.0]), "count": jnp.array([0.0])}

    take_step = compile_step(blueprint, config, make_mesh(jax.devices()[:1]))
    first = make_state(blueprint, weights, config)
    key = jax.random.key(3)
    noise = [float(jax.random.uniform(jax.random.fold_in(key, step))) for step in range(2)]
    second, metrics = take_step(first, tiny_batch)
    # 2 + 3 is clipped to 4, to which .5 * 2 is added; the weight moves by .1 * 5.
    assert float(second.params["weight"][0]) == pytest.approx(1.5)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {"square": 2, "linear": 6, "noise": noise[0], "loss": 8 + noise[0]} | {"gradient_norm": 5, "lr": 0.1}
    )
    third, metrics = take_step(second, tiny_batch)
    # 1.5 + 3 is clipped to 4; with .5 * 1.5 and .9 * 5 the trace is 9.25, and the rate .05.
    assert float(third.params["weight"][0]) == pytest.approx(1.5 - 0.05 * 9.25)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {"square": 1.125, "linear": 4.5, "noise": noise[1], "loss": 5.625 + noise[1]}
        | {"gradient_norm": 4.5, "lr": 0.05}
    )
    assert {name: float(value[0]) for name, value in third.weights().items()} == pytest.approx(
        {"weight": 1.0375, "frozen": 3, "count": 16}
    )
    assert int(third.step) == 2
    assert second.params["weight"].is_deleted() and second.batch_stats["count"].is_deleted()  # donated
    assert len(given_back) == 1  # after compiling


def test_batch_that_does_not_divide(tiny_blueprint, tiny_config):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, batch_size=12))
    with pytest.raises(ValueError, match=r"train.batch_size \(12\) must be divisible by .* devices \(8\)"):
        compile_step(tiny_blueprint, config, make_mesh())
    compile_step(tiny_blueprint, config, make_mesh(spatial_devices=2))
    config.train.batch_size = 6
    with pytest.raises(ValueError, match=r"\(6\) must .* groups of 2 devices that share an image \(4\)"):
        compile_step(tiny_blueprint, config, make_mesh(spatial_devices=2))
