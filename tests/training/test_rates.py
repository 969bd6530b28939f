import hashlib
import json
import re
from pathlib import Path

import pytest

from mrcnn_jax.config import TrainConfig, presets
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training.patterns import matched
from mrcnn_jax.training.rates import rate_factors, weight_decay_factors
from mrcnn_jax.weights.mmdetection import layouts

NAMES = ("backbone.conv1.kernel", "backbone.layer1.0.bn1.bias", "fpn.inner.0.bias", "rpn.conv.kernel")


def test_a_star_stands_for_dots_and_case_counts():
    assert matched("backbone.*", NAMES) == list(NAMES[:2])
    assert matched("*.bias", NAMES) == list(NAMES[1:3])
    assert matched("rpn.conv.kernel", NAMES) == ["rpn.conv.kernel"]
    assert matched("backbone.layer[12].*", NAMES) == [NAMES[1]]
    assert matched("Backbone.*", NAMES) == matched("conv", NAMES) == []


def test_the_last_pattern_that_matches_decides():
    config = TrainConfig(rate_factors=(("backbone.*", 0.1), ("*.bias", 2.0)))
    assert list(rate_factors(NAMES, config).values()) == [0.1, 2.0, 2.0, 1.0]
    config = TrainConfig(weight_decay_factors=(("*.bias", 0.0), ("backbone.*", 3.0)))
    assert list(weight_decay_factors(NAMES, config).values()) == [3.0, 3.0, 0.0, 1.0]
    assert rate_factors(NAMES, config) == dict.fromkeys(NAMES, 1.0)


def test_patterns_without_a_match_are_all_named_with_what_is_near():
    config = TrainConfig(rate_factors=(("backbon.*", 0.1), ("fpn.*", 2.0), ("rpn.convs.kernel", 1.0)))
    with pytest.raises(ValueError) as error:
        rate_factors(NAMES, config)
    first, second = str(error.value).splitlines()
    assert re.match(
        r"train.rate_factors has 'backbon\.\*', which matches no trained array; nearest: backbone\.\*, ",
        first,
    )
    assert "'rpn.convs.kernel'" in second and "nearest: rpn.conv.kernel, " in second
    with pytest.raises(
        ValueError, match=r"train.weight_decay_factors has 'mask\*', which matches no trained array"
    ):
        weight_decay_factors(NAMES, TrainConfig(weight_decay_factors=(("mask*", 0.0),)))


@pytest.mark.parametrize(
    "name", ["convnext_t", *(pytest.param(n, marks=pytest.mark.slow) for n in ("convnext_s", "swin_t"))]
)
def test_rates_and_decays_of_mmdetections_recipes(name):
    """What its optimizers have, stored by ``tests/fixtures/mmdetection_rates.py``."""
    config = presets.adamw_3x(name)
    blueprint = make_blueprint(config.model, num_classes=80)
    trained, _, _ = blueprint.split(blueprint.shapes())
    rates, factors = rate_factors(trained, config.train), weight_decay_factors(trained, config.train)
    lines = []
    for array, layout in layouts(blueprint).items():
        if name != "convnext_s" or array.startswith("backbone."):
            is_norm = f"{array.rpartition('.')[0]}.scale" in trained
            decay = config.train.weight_decay_norm if is_norm else config.train.weight_decay
            lines.append(f"{layout.name} {rates[array]:.6g} {decay * factors[array]:.6g}")
    wanted = json.loads((Path(__file__).parents[1] / "fixtures/mmdetection_rates.json").read_text())[name]
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16] == wanted


def test_swins_tables_do_not_decay():
    config = presets.adamw_3x("swin_t")
    config.model.backbone_width = 8
    names = make_blueprint(config.model, num_classes=1).shapes()
    tables = {name for name in names if name.endswith("relative_position_bias_table")}
    factors = weight_decay_factors(names, config.train)
    assert len(tables) == 12 and {name for name in names if factors[name] == 0} == tables
