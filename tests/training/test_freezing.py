"""Arrays frozen by name, in a model of a convolution and a batch norm, and in the tiny model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.training.freezing import freeze
from mrcnn_jax.training.step import compile_step, make_state


def test_frozen_arrays_leave_their_groups(tiny_blueprint):
    names = tiny_blueprint.shapes()
    params, frozen, batch_stats = freeze(
        tiny_blueprint, TrainConfig(frozen=("backbone.*", "mask_head.*.bias"))
    ).split(names)
    before = tiny_blueprint.split(names)
    chosen = {name for name in names if name.startswith("backbone.")}
    chosen |= {name for name in names if name.startswith("mask_head.") and name.endswith(".bias")}
    assert params.keys() == before[0].keys() - chosen
    assert frozen.keys() == before[1].keys() | chosen
    assert before[2] and not batch_stats  # only the backbone has batch norms
    assert freeze(tiny_blueprint, TrainConfig()) is tiny_blueprint


def test_a_pattern_without_a_match_and_nothing_to_train(tiny_blueprint, tiny_config):
    with pytest.raises(ValueError) as error:
        freeze(tiny_blueprint, TrainConfig(frozen=("fpn.*", "box_haed.*")))
    assert str(error.value).startswith(
        "train.frozen has 'box_haed.*', which matches no array of the model; nearest: box_head.*"
    )
    with pytest.raises(
        ValueError, match=r"train.frozen is \('\*',\); it leaves no array of the model to train"
    ):
        freeze(tiny_blueprint, TrainConfig(frozen=("*",)))
    # A run is not begun with patterns that match nothing.
    train = dataclasses.replace(
        tiny_config.train, frozen=("backbone.*",), rate_factors=(("backbone.*", 0.1),)
    )
    with pytest.raises(
        ValueError, match=r"train.rate_factors has 'backbone.\*', which matches no trained array"
    ):
        compile_step(tiny_blueprint, dataclasses.replace(tiny_config, train=train), make_mesh())


class Small(MaskRCNN):
    """A factor and two batch norms, of which the second may be frozen."""

    def __init__(self):
        self.factor = nnx.Param(jnp.array([2.0]))
        self.norms = nnx.List([nnx.BatchNorm(1, momentum=0.5, epsilon=0.0, rngs=nnx.Rngs(0)) for _ in "ab"])


def test_a_frozen_batch_norm_normalises_by_its_statistics(tiny_config, tiny_batch, monkeypatch):
    outputs = []

    def compute_losses(model, batch, key, config, image_counts):
        x = jnp.array([[1.0], [5.0]]) * model.factor[...]
        jax.debug.callback(lambda *found: outputs.append(found), *(norm(x)[:, 0] for norm in model.norms))
        return {"loss_of_factor": (model.norms[0](x) * model.norms[1](x)).sum()}

    monkeypatch.setattr("mrcnn_jax.training.step.compute_losses", compute_losses)
    config = dataclasses.replace(tiny_config, train=TrainConfig(frozen=("norms.1.*",), batch_size=8))
    graphdef, variables = nnx.split(Small())
    blueprint = Blueprint(config.model, 1, 0, graphdef, dict(nnx.to_flat_state(variables)), frozenset())
    weights = {name: jnp.ones(1) for name in blueprint.shapes()} | {"factor": jnp.array([2.0])}
    state = make_state(blueprint, weights, config)
    assert set(state.batch_stats) == {"norms.0.mean", "norms.0.var"}
    momentum = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert len(momentum) == len(state.params) == 3
    after, _ = compile_step(blueprint, config, make_mesh(jax.devices()[:1]))(state, tiny_batch)
    jax.effects_barrier()
    # 2 and 10 are normalised by their mean 6 and deviation 4, or by 1 and 1; the bias is 1.
    ((first, second),) = outputs
    np.testing.assert_allclose(first, [0, 2], atol=1e-6)
    np.testing.assert_allclose(second, [2, 10], atol=1e-6)
    for name in ("scale", "bias", "mean", "var"):
        np.testing.assert_array_equal(after.weights()[f"norms.1.{name}"], [1.0])
    assert float(after.batch_stats["norms.0.mean"][0]) != 1
