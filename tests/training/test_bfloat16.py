"""What stays float32 in a bfloat16 model (docs/fidelity.md)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training.step import make_state, train_step

# Everything that a step computes in bfloat16. Not among these: sums over an axis (except a matmul's, which
# accumulates in float32), divisions, exponentials, logarithms, sorts, comparisons of boxes and scores.
LAYERS = {"conv_general_dilated", "dot_general", "add", "reduce_window_max"}  # "add": biases and shortcuts
FROZEN_NORMS = {"mul"}
RELU = {"max", "ne", "select_n"}
GRADIENTS = {"add_any", "select_and_scatter_add"}  # of a value with several uses, and of max pooling
MOVES = {
    *(
        "broadcast_in_dim",
        "concatenate",
        "dynamic_slice",
        "gather",
        "pad",
        "reshape",
        "rev",
        "scatter",
        "slice",
        "stack",
        "unstack",
    ),
    *("squeeze", "transpose", "convert_element_type", "optimization_barrier"),
}
CALLS = {"cond", "custom_jvp_call", "custom_vjp_call", "custom_vmap_call", "jit", "remat2", "scan"}


def equations(jaxpr):
    """All equations of a program, those of its parts included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for part in jax.tree.leaves(eqn.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
            if isinstance(part, Jaxpr | ClosedJaxpr):
                yield from equations(getattr(part, "jaxpr", part))


@pytest.fixture(scope="module")
def step(tiny_config, tiny_batch):
    """The training step of a bfloat16 model with every norm, traced without a mesh: for every platform."""
    norms = {"backbone_norm": "frozen_batch", "fpn_norm": "batch", "box_norm": "group"}
    model = dataclasses.replace(
        tiny_config.model, dtype="bfloat16", backbone_frozen_stages=0, box_convs=1, **norms
    )
    config = dataclasses.replace(tiny_config, model=model)
    blueprint = make_blueprint(model, num_classes=4, num_keypoints=9)
    weights = blueprint.shapes()
    state = jax.eval_shape(partial(make_state, blueprint, config=config), weights)
    return jax.make_jaxpr(partial(train_step, blueprint=blueprint, config=config))(state, tiny_batch)


def test_all_but_the_layers_is_float32(step):
    found = {
        eqn.primitive.name
        for eqn in equations(step.jaxpr)
        if any(getattr(x.aval, "dtype", None) == jnp.bfloat16 for x in eqn.invars)
    }
    assert found == LAYERS | FROZEN_NORMS | RELU | GRADIENTS | MOVES | CALLS


def test_state_and_metrics_are_float32(step):
    dtypes = {x.dtype for x in step.out_avals if jnp.issubdtype(x.dtype, jnp.floating)}
    assert dtypes == {jnp.dtype("float32")}
