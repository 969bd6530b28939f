from functools import partial
from types import SimpleNamespace

import jax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.predict import predict
from mrcnn_jax.runtime.platforms import by_platform
from mrcnn_jax.training.step import make_state, train_step

STAGES = {"backbone", "fpn", "rpn", "proposals", "roi_align", "box_head", "mask_head", "keypoint_head"}


@pytest.fixture(scope="module")
def programs(tiny_config, tiny_blueprint, tiny_weights, tiny_batch):
    """Inference and the training step of the tiny model, traced without a mesh: for every platform."""

    def detect(weights, batch):
        return predict(tiny_blueprint.build(weights), batch.images, batch.image_sizes, tiny_config)

    step = partial(train_step, blueprint=tiny_blueprint, config=tiny_config)
    state = jax.eval_shape(lambda: make_state(tiny_blueprint, tiny_weights, tiny_config))
    return {
        "inference": jax.jit(detect).trace(tiny_weights, tiny_batch),
        "training": jax.jit(step).trace(state, tiny_batch),
    }


def test_only_the_form_of_a_meshs_platform_is_traced(monkeypatch):
    traced = []

    def make(name, value):
        return lambda x: (traced.append(name), x + value)[1]

    forms = {"cpu": make("cpu", 1), "tpu": make("tpu", 2), "default": make("default", 3)}
    program = jax.jit(lambda x: by_platform(forms, x))
    assert program(1.0) == 2.0
    assert set(traced) == {"cpu", "tpu", "default"}
    traced.clear()
    with jax.set_mesh(make_mesh(jax.devices()[:1])):
        assert program(1.0) == 2.0
    assert traced == ["cpu"]
    for platform, value in (("tpu", 2), ("gpu", 3)):
        mesh = SimpleNamespace(abstract_device=SimpleNamespace(platform=platform))
        monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda mesh=mesh: mesh)
        assert by_platform(forms, 0) == value


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["inference", "training"])
def test_the_model_lowers_for_accelerators(programs, name, platform):
    """JAX can lower for an accelerator without having one."""
    text = programs[name].lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text  # XLA's own convolution, absent on a CPU


def scopes(jaxpr):
    """The names of all scopes around a program's operations."""
    found = set()
    for equation in jaxpr.eqns:
        found |= {str(part) for part in str(equation.source_info.name_stack).split("/")}
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                found |= scopes(getattr(value, "jaxpr", value))
    return found


@pytest.mark.parametrize(
    ("name", "stages"),
    [("inference", STAGES | {"select_detections"}), ("training", STAGES | {"optimizer"})],
)
def test_every_stage_has_its_name_in_profiles(programs, name, stages):
    found = {scope.split("(")[-1].rstrip(")") for scope in scopes(programs[name].jaxpr.jaxpr)}
    assert stages <= found
