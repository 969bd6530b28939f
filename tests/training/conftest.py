"""A small run for the tests of the loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.training import loop, state


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    """Four steps on ten small pictures, evaluated after the last."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=10, val=3, image_size=64, seed=0)
    return dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, root=str(root)),
        train=dataclasses.replace(tiny_config.train, eval_every=4),
    )


@pytest.fixture
def counted_steps(monkeypatch, tiny_blueprint):
    """The states and batches of steps that compute nothing: they count, also in the optimizer's state."""
    seen = []

    def compile_step(*_):
        def run(state, batch):
            seen.append((state, batch))
            after = state.replace(
                step=state.step + 1, opt_state=jax.tree.map(lambda x: x + 1, state.opt_state)
            )
            return after, {"loss": state.step + 1.0, "lr": jnp.array(0.1)}

        return run

    monkeypatch.setattr(loop, "compile_step", compile_step)
    # As drawing weights would take most of the time.
    zeros = {name: np.zeros(x.shape, x.dtype) for name, x in tiny_blueprint.shapes().items()}
    monkeypatch.setattr(loop, "make_blueprint", lambda *_, **__: tiny_blueprint)
    monkeypatch.setattr(state, "initial_weights", lambda *_: zeros)
    return seen
