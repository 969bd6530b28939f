"""The heads of the paper's tables 2b and 2e and of section 4.2, and cascades: training and prediction."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrcnn_jax
from mrcnn_jax.config import presets
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.training.step import compile_step, make_state

FULLY_CONNECTED = {"mask_convs": 0, "mask_fcs": 2, "mask_fc_channels": 32}
VARIANTS = {
    "softmax masks, class-agnostic boxes": {"mask_loss": "softmax", "box_agnostic": True},
    "class-agnostic masks": {"mask_agnostic": True},
    "fully connected masks": FULLY_CONNECTED,
    "fully connected class-agnostic masks, softmax, batch norm": {
        **FULLY_CONNECTED,
        "mask_loss": "softmax",
        "mask_agnostic": True,
        "box_norm": "batch",
        "box_convs": 1,
    },
    "softmax masks, batch norm": {"mask_loss": "softmax", "mask_norm": "batch"},
    "a cascade, batch norm": {
        "box_agnostic": True,
        "box_cascade": presets.CASCADE,
        "box_convs": 1,
        "box_norm": "batch",
    },
    "C4, softmax masks": {
        "features": "c4",
        "backbone_depth": 50,
        "padding_multiple": 1,
        "anchor_sizes": (16.0, 32.0),
        "box_pool_size": 14,
        "box_fcs": 0,
        "mask_convs": 0,
        "mask_loss": "softmax",
    },
    "C4, fully connected masks": {
        "features": "c4",
        "backbone_depth": 50,
        "padding_multiple": 1,
        "anchor_sizes": (16.0, 32.0),
        "box_pool_size": 14,
        "box_fcs": 0,
        **FULLY_CONNECTED,
    },
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=VARIANTS)
def config(tiny_config, request):
    """The tiny config with a variant's heads, without keypoints."""
    model = dataclasses.replace(tiny_config.model, keypoint=False, **VARIANTS[request.param])
    train = dataclasses.replace(
        tiny_config.train,
        batch_size=2,
        warmup_steps=0,
        optimizer="adamw",
        learning_rate=0.003,
        cascade_positive_ious=(0.6, 0.7) if model.box_cascade else (),
    )
    return dataclasses.replace(tiny_config, model=model, train=train)


@pytest.fixture(scope="module")
def blueprint(config):
    return make_blueprint(config.model, num_classes=4)


@pytest.fixture(scope="module")
def weights(blueprint):
    """Random weights, small in the last layers. NumPy draws them: JAX would compile a program a shape."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, x in blueprint.shapes().items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "kernel":
            small = layer.endswith(("_logits", "_score", "_pred"))
            std = 0.001 if small else np.prod(x.shape[:-1]) ** -0.5
            weights[name] = rng.normal(0, std, x.shape).astype(np.float32)
        else:
            weights[name] = np.full(x.shape, leaf in ("scale", "var"), np.float32)
    return weights


@pytest.fixture(scope="module")
def take_steps(config, blueprint, weights, tiny_batch):
    """``take_steps(devices, count)``: the metrics of each step on two images."""
    rows = jax.tree.map(lambda x: x[:2], tiny_batch)
    # Objects that fill their boxes or the left half: something to learn.
    masks = np.ones_like(rows.gt.masks)
    masks[:, 1, :, 14:] = 0
    batch = rows.replace(gt=rows.gt.replace(masks=masks, keypoints=None))

    def run(devices, count):
        mesh = make_mesh(jax.devices()[:devices])
        step = compile_step(blueprint, config, mesh)
        state = make_state(blueprint, jax.tree.map(jnp.array, weights), config)
        state = jax.device_put(state, replicated(mesh))
        history = []
        for _ in range(count):
            state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
            history.append(jax.device_get(metrics))
        return history

    return run


@pytest.fixture(scope="module")
def history(take_steps):
    return take_steps(1, 30)


def test_the_losses_fall(history, config):
    first = history[0]
    # Of several steps, as each has its own sample of regions.
    last = {name: np.median([metrics[name] for metrics in history[-10:]]) for name in first}
    # Untrained: each outcome is as probable as the others, one of two, or one of the classes.
    outcomes = 2 if config.model.mask_loss == "sigmoid" or config.model.mask_agnostic else 5
    assert first["mask"] == pytest.approx(np.log(outcomes), rel=0.05)
    assert last["mask"] < 0.95 * first["mask"]
    assert last["loss"] < first["loss"]


def test_two_devices_give_the_numbers_of_one(history, take_steps):
    (on_two,) = take_steps(2, 1)
    for name in ("loss", "box", "mask"):
        assert on_two[name] == pytest.approx(history[0][name], rel=1e-4), name


def test_a_saved_run_detects(config, weights, tmp_path):
    write_run(tmp_path, config, Categories(ids=(1, 2, 3, 4), names=tuple("abcd")))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(8, jax.tree.map(jnp.asarray, weights))
    detector = mrcnn_jax.load(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    result = detector(image)
    assert 0 < len(result) <= 8 and set(result.labels) <= {1, 2, 3, 4}
    assert result.masks is not None and result.masks.shape == (len(result), 40, 60)
    assert result.masks.any()
