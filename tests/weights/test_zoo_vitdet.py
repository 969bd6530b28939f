"""Project ViTDet's models against its configurations, stored by ``fixtures/detectron2_vitdet.py``."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from mrcnn_jax.config.io import flatten, validate
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training.rates import rate_factors, weight_decay_factors
from mrcnn_jax.weights.detectron2 import layouts
from mrcnn_jax.weights.zoo_models import MODELS, config_of

FIXTURE = Path(__file__).parents[1] / "fixtures" / "detectron2_vitdet.json"
THEIRS = {entry["address"]: entry for entry in json.loads(FIXTURE.read_text()).values()}
NAMES = [name for name, model in MODELS.items() if model.address in THEIRS]
QUICK = "detectron2/cascade_mask_rcnn_vitdet_b_lvis_100ep"


def test_all_are_published_here() -> None:
    assert len(NAMES) == len(THEIRS) == 12


@pytest.mark.parametrize("name", NAMES)
def test_settings(name: str) -> None:
    """Layers, pixels, data, schedule, sampling and detection are those of its configuration; so is the AP."""
    wanted = dict(THEIRS[MODELS[name].address])
    config = config_of(MODELS[name])
    validate(config)
    assert list(MODELS[name].ap) == wanted.pop("ap")
    assert ("lvis" in name) == ("lvis" in wanted["data.train_annotations"])
    for not_a_setting in ("address", "arrays", "rates"):
        del wanted[not_a_setting]
    found = json.loads(json.dumps(flatten(config)))  # with lists for tuples
    assert {field: found[field] for field in wanted} == wanted


@pytest.mark.parametrize(
    "name",
    [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_names_shapes_and_rates(name: str) -> None:
    wanted, config = THEIRS[MODELS[name].address], config_of(MODELS[name])
    blueprint = make_blueprint(config.model, num_classes=1203 if "lvis" in name else 80)
    arrays = layouts(blueprint)
    assert digest(f"{array.name} {array.shape}" for array in arrays.values()) == wanted["arrays"]
    trained, _, _ = blueprint.split(blueprint.shapes())
    rates, decays = rate_factors(trained, config.train), weight_decay_factors(trained, config.train)
    decay = config.train.weight_decay
    assert decay == config.train.weight_decay_norm
    lines = (f"{arrays[name].name} {rates[name]:.6g} {decay * decays[name]:.6g}" for name in trained)
    assert digest(lines) == wanted["rates"]


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
