"""Batch norm's statistics over many batches, of a model of one norm and of a whole one."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.distributed.sharding import make_mesh, replicated
from mrcnn_jax.models.canvas import image_mask
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.norm import make_norm
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.checkpoint import load_weights
from mrcnn_jax.training import loop
from mrcnn_jax.training.precise_bn import PreciseStatistics, Statistics, merge, trained_norms
from mrcnn_jax.training.step import make_state

FVCORE = Path(__file__).parents[1] / "fixtures" / "fvcore_precise_bn.py"


class OneNorm(MaskRCNN):
    """A batch norm in a list, as in a shortcut of a ResNet."""

    def __init__(self, channels):
        self.norms = nnx.List(
            [make_norm("batch", channels, epsilon=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))]
        )


@pytest.fixture
def one_norm(tiny_config, monkeypatch):
    """``one_norm(channels, canvases, **train)``: the first state, and the function that measures."""

    def sum_losses(model, batch, keys, config, image_counts):
        """Normalises the part of every map that its image covers."""
        model.norms[0](batch.images, mask=image_mask(batch.images.shape[1:3], batch.image_sizes))
        return {}

    monkeypatch.setattr("mrcnn_jax.training.precise_bn.sum_losses", sum_losses)

    def make(channels, canvases, **train):
        config = dataclasses.replace(
            tiny_config,
            data=dataclasses.replace(tiny_config.data, canvases=canvases),
            train=dataclasses.replace(tiny_config.train, **train),
        )
        graphdef, variables = nnx.split(OneNorm(channels))
        blueprint = Blueprint(config.model, 1, 0, graphdef, dict(nnx.to_flat_state(variables)), frozenset())
        names = {"scale": 1.0, "bias": 0.0, "mean": 7.0, "var": 8.0}
        weights = {f"norms.0.{name}": jnp.full(channels, value) for name, value in names.items()}
        mesh = make_mesh(jax.devices()[:1])
        state = jax.device_put(make_state(blueprint, weights, config), replicated(mesh))
        return state, PreciseStatistics(blueprint, config, mesh)

    return make


def _batch(tiny_batch, images, sizes):
    gt = jax.tree.map(lambda x: x[: len(images)], tiny_batch.gt)
    sizes = np.array(sizes, np.int32)
    return tiny_batch.replace(images=np.array(images, np.float32), image_sizes=sizes, gt=gt)


def test_by_hand():
    """Of 1, 3 and 8: mean 4, variance (9 + 1 + 16) / 3. What has no cells, changes nothing."""
    two = Statistics(jnp.array([2.0]), jnp.array([1.0]), jnp.array(2.0))
    one = Statistics(jnp.array([8.0]), jnp.array([0.0]), jnp.array(1.0))
    none = Statistics(jnp.array([jnp.nan]), jnp.array([jnp.nan]), jnp.array(0.0))
    nothing = Statistics(jnp.zeros(1), jnp.zeros(1), jnp.array(0.0))
    found = merge(merge(merge(merge(nothing, none), two), one), none)
    np.testing.assert_allclose([*found.mean, *found.var, found.cells], [4, 26 / 3, 3], rtol=1e-6)


def test_equal_to_fvcores(one_norm, tiny_batch):
    """Images of several sizes, up to three, lie on canvases, whose rest counts for nothing."""
    spec = importlib.util.spec_from_file_location(FVCORE.stem, FVCORE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    batches = []
    for maps in script.batches():
        count, height, width, _ = maps.shape
        canvas = np.full((3, 8, 8, 3), 100.0, np.float32)
        canvas[:count, :height, :width] = maps
        sizes = [(height, width)] * count + [(0, 0)] * (3 - count)
        batches.append(_batch(tiny_batch, canvas, sizes))
    state, measure = one_norm(3, ((8, 8),))
    found = measure.update(state, batches).batch_stats
    wanted = json.loads(FVCORE.with_suffix(".json").read_text())
    for name, values in wanted.items():
        np.testing.assert_allclose(found[f"norms.0.{name}"], values, rtol=1e-5)


@pytest.mark.parametrize("train", [{"accumulate": 2}, {"ema_decay": 0.5}])
def test_in_parts_and_with_an_average(one_norm, tiny_batch, train):
    """Of two batches of two images of two cells, one of which is beyond its image."""
    batches = [
        _batch(tiny_batch, np.arange(1, 5).reshape(2, 2, 1, 1), [(2, 1)] * 2),
        _batch(tiny_batch, [[[[9]], [[0]]], [[[6]], [[10]]]], [(1, 1), (2, 1)]),
    ]
    state, measure = one_norm(1, ((2, 1),), **train)
    after = measure.update(state, batches)
    values = np.array([1, 2, 3, 4, 9, 6, 10])
    found = {name: float(value[0]) for name, value in after.weights().items()}
    wanted = {"norms.0.mean": values.mean(), "norms.0.var": values.var()}
    assert found == pytest.approx(wanted | {"norms.0.scale": 1, "norms.0.bias": 0})
    if "ema_decay" in train:  # training goes on with its own
        assert float(after.batch_stats["norms.0.mean"][0]) == 7


def test_which_norms_are_measured(tiny_blueprint):
    names = trained_norms(tiny_blueprint)
    assert "backbone.layer1.0.bn1" in names and "backbone.layer2.0.downsample.1" in names
    assert "backbone.bn1" not in names  # of the frozen stem


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=10, val=3, image_size=64, seed=0)
    return dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, root=str(root)))


def _train(config, workdir, **train):
    loop.train(dataclasses.replace(config, train=dataclasses.replace(config.train, **train)), workdir)
    return load_weights(workdir)[1]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_programs")
def test_a_run(config, tmp_path, capsys):
    """The statistics of the batch of the next step, which then leaves running averages where they are."""
    precise = _train(config, tmp_path / "precise", steps=1, precise_bn=1)
    assert "batch norm: statistics of 1 batches" in capsys.readouterr().out
    plain = _train(config, tmp_path / "plain", steps=1)
    statistics = {name for name in plain if name.endswith((".mean", ".var")) and ".layer" in name}
    for name, value in plain.items():
        assert np.array_equal(value, precise[name]) is (name not in statistics), name
    after = _train(config, tmp_path / "precise", steps=2, precise_bn=0)
    for name in statistics:
        np.testing.assert_allclose(after[name], precise[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("counted_steps")
def test_when_and_of_which_batches(config, tmp_path, monkeypatch):
    """Before each evaluation and after the last step, of the steps that follow."""
    seen = []

    def update(self, state, batches):
        seen.append((int(state.step), [batch.images for batch in batches]))
        return state

    monkeypatch.setattr(PreciseStatistics, "update", update)
    monkeypatch.setattr(loop.Monitor, "evaluate", lambda *_: {"bbox": 1.0})
    monkeypatch.setattr(loop.Checkpoints, "save", lambda *_: seen.append("saved"))
    settings = {"steps": 5, "eval_every": 2, "checkpoint_every": 3, "precise_bn": 2}
    loop.train(dataclasses.replace(config, train=dataclasses.replace(config.train, **settings)), tmp_path)
    assert [one if one == "saved" else one[0] for one in seen] == [
        2,
        "saved",
        "saved",
        4,
        "saved",
        5,
        "saved",
    ]
    (_, (_, second)), (_, (first, _)) = seen[0], seen[3]
    # Of steps 2 and 3, then 4 and 5, then 5 and 6, counted from 0.
    np.testing.assert_array_equal(seen[3][1][1], seen[5][1][0])
    assert not np.array_equal(second, first)


@pytest.mark.usefixtures("counted_steps")
def test_without_a_trained_batch_norm_it_says_so(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "trained_norms", lambda blueprint: [])
    monkeypatch.setattr(loop.Checkpoints, "save", lambda *_: None)
    train = dataclasses.replace(config.train, steps=1, precise_bn=2)
    loop.train(dataclasses.replace(config, train=train), tmp_path)
    assert "train.precise_bn has no effect: no batch norm of the model is trained" in capsys.readouterr().out
