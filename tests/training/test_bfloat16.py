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

# What other backbones add, with the gradients.
GELU = {"copy", "erfc", "exp", "mul", "neg", "square"}
SIGMOID = {"logistic", "mul", "sub"}  # of squeeze and excitation, and of a modulation


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


def in_bfloat16(program):
    """The operations of a program that have bfloat16 operands."""
    return {
        eqn.primitive.name
        for eqn in equations(program.jaxpr)
        if any(getattr(x.aval, "dtype", None) == jnp.bfloat16 for x in eqn.invars)
    }


def test_all_but_the_layers_is_float32(step):
    assert in_bfloat16(step) == LAYERS | FROZEN_NORMS | RELU | GRADIENTS | MOVES | CALLS


BACKBONES = {
    # Sums in bfloat16: the gradients of relative positions, over rows or columns, and of absolute ones.
    "ViT": ({"backbone": "vit_b", "backbone_width": 64}, GELU | {"reduce_sum"}),
    "Swin": ({"backbone": "swin_t"}, GELU | {"split"}),
    # The gradient of a layer's scale, over all cells.
    "ConvNeXt": ({"backbone": "convnext_t"}, GELU | {"reduce_sum"}),
    # The gradient of a channel's factor, over all cells.
    "RegNet": ({"backbone": "regnety_4gf"}, SIGMOID | {"reduce_sum"}),
    # The gradients of cells that are read several times.
    "deformable": (
        {"backbone_deformable": "modulated", "backbone_depth": 50},
        SIGMOID | {"scatter-add"},
    ),
    "non-local": ({"non_local": "subsampled"}, FROZEN_NORMS),
}


@pytest.mark.slow  # traces the gradient of each backbone
@pytest.mark.parametrize("name", BACKBONES)
def test_what_other_backbones_add(name, tiny_config):
    fields, more = BACKBONES[name]
    shared = {"dtype": "bfloat16", "backbone_norm": "frozen_batch", "backbone_frozen_stages": 0}
    model = dataclasses.replace(tiny_config.model, **shared | fields)
    config = dataclasses.replace(tiny_config, model=model)
    blueprint = make_blueprint(model, num_classes=4, num_keypoints=9)
    state = jax.eval_shape(partial(make_state, blueprint, config=config), blueprint.shapes())

    def loss(params, fixed, images, sizes):
        maps = blueprint.build(params | fixed).features(images, sizes).maps
        return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(maps))

    images, sizes = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    gradient = jax.make_jaxpr(jax.grad(loss))(state.params, state.frozen, images, sizes)
    listed = LAYERS | RELU | GRADIENTS | MOVES | CALLS
    assert in_bfloat16(gradient) - listed == more


def test_state_and_metrics_are_float32(step):
    dtypes = {x.dtype for x in step.out_avals if jnp.issubdtype(x.dtype, jnp.floating)}
    assert dtypes == {jnp.dtype("float32")}
