"""The small rows as they begin: with the backbone of their RPN, on the pictures that are drawn."""

import dataclasses

import jax.numpy as jnp
import pytest

from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.paper import bed
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights.begin import begin_run
from mrcnn_jax.weights.parts import blueprint_of
from mrcnn_jax.weights.zoo_models import named_config


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The folder of a few pictures."""
    folder = tmp_path_factory.mktemp("bed") / "shapes"
    make_shapes(folder, train=3, val=1, image_size=64, seed=0)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_eagerly")
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.number)
def test_every_row_begins_from_its_rpn(table, shapes, tmp_path):
    for row in table.rows:
        config = bed.shrink(named_config(f"paper/{row.config}"), shapes, seed=0)
        config.data = dataclasses.replace(config.data, train_proposals="", val_proposals="")
        alone = bed.rpn_alone(config)
        rpn, categories = tmp_path / f"rpn_{row.config}", open_data_source(alone).categories
        weights = {name: jnp.ones(x.shape) for name, x in blueprint_of(alone, categories).shapes().items()}
        write_run(rpn, alone, categories)
        with Checkpoints(rpn, keep=1) as checkpoints:
            checkpoints.save(0, weights)
        begun = begin_run(rpn, config, tmp_path / row.config, open_data_source(config).categories)
        assert begun.left_out == ("rpn",)
        _, found = load_weights(tmp_path / row.config)
        new = {name.partition(".")[0] for name in found} - {name.partition(".")[0] for name in weights}
        assert set(begun.new_layers) == new
