import json
import os
import re
from collections import Counter
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from mrcnn_jax.compile_report.programs import Objects, lower_predict, lower_step
from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.predict import predict
from mrcnn_jax.runtime.platforms import by_platform
from mrcnn_jax.training.step import make_state, train_step

# How often every operation occurs in the default programs. To renew them, if a change is meant to alter these
# programs:
#     RENEW_DEFAULT_PROGRAMS=1 python -m pytest -n 0 -m "slow or not slow" tests/runtime/test_platforms.py
COUNTS = Path(__file__).parents[1] / "fixtures" / "default_programs.json"

STAGES = {"backbone", "fpn", "rpn", "proposals", "roi_pooling", "box_head", "mask_head", "keypoint_head"}


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


@pytest.fixture(scope="module")
def text_of(programs):
    """``text_of(name, platform)``: a program of ``programs`` lowered for a platform."""
    return cache(lambda name, platform: programs[name].lower(lowering_platforms=(platform,)).as_text())


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
def test_the_model_lowers_for_accelerators(text_of, name, platform):
    """JAX can lower for an accelerator without having one."""
    assert "stablehlo.convolution" in text_of(name, platform)  # XLA's own convolution, absent on a CPU


def operations(text):
    """How often every operation occurs in a lowered program: "stablehlo.add", "call"."""
    found = re.findall(r"(?<!#)\bstablehlo\.\w+|\bcall(?= @)", text)
    return dict(sorted(Counter(name.removeprefix("stablehlo.") for name in found).items()))


def test_operations_by_hand():
    text = """
      %0 = stablehlo.add %arg0, %arg1 : tensor<2xf32>
      %1 = stablehlo.compare LT, %0, %arg0, FLOAT : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xi1>
      %2 = "stablehlo.scatter"(%0) <{scatter_dimension_numbers = #stablehlo.scatter<index_vector_dim = 1>}>
      %3 = call @relu(%0) : (tensor<2xf32>) -> tensor<2xf32>
      %4 = stablehlo.add %3, %3 : tensor<2xf32>
      func.func private @relu(%arg0: tensor<2xf32>) {"""
    assert operations(text) == {"add": 2, "call": 1, "compare": 1, "scatter": 1}


def check_counts(name, text):
    """Compares the operations of a default program with the stored ones, or stores them."""
    found, stored = operations(text), json.loads(COUNTS.read_text())
    if os.environ.get("RENEW_DEFAULT_PROGRAMS"):
        programs = dict(sorted((stored["programs"] | {name: found}).items()))
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in programs.items())
        COUNTS.write_text(f'{{"jax": "{jax.__version__}", "programs": {{\n{lines}\n}}}}\n')
    elif stored["jax"] != jax.__version__:
        pytest.skip(f"the operations were counted with jax {stored['jax']}")
    else:
        assert found == stored["programs"][name]


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("name", ["inference", "training"])
def test_nothing_is_added_to_the_default_programs(text_of, name, platform):
    """An option that is off costs nothing: no operation more in the tiny model's programs."""
    check_counts(f"tiny {name}, {platform}", text_of(name, platform))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lower"), [("inference", lower_predict), ("training", lower_step)])
def test_nothing_is_added_to_the_programs_of_r50_fpn(name, lower):
    config, mesh = Config(train=TrainConfig(batch_size=2)), make_mesh(jax.devices()[:1])
    check_counts(f"R50-FPN {name}, cpu", lower(config, mesh, (800, 1344), objects=Objects()).as_text())


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
