"""MMDetection's published models against its configurations, stored by ``fixtures/mmdetection_zoo.py``."""

import hashlib
import json
from pathlib import Path

import pytest

from mrcnn_jax.config.io import flatten
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.mmdetection import layouts
from mrcnn_jax.weights.zoo_models import MODELS, Model, config_of

THEIRS = json.loads((Path(__file__).parents[1] / "fixtures" / "mmdetection_zoo.json").read_text())
NAMES = [name for name in MODELS if name.startswith("mmdetection/")]
# One of each kind; making a model's structure takes a second.
QUICK = (
    *("mmdetection/mask_rcnn_r50_fpn_gn-all_2x", "mmdetection/cascade_mask_rcnn_r50_fpn_1x"),
    *("mmdetection/faster_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x", "mmdetection/mask_rcnn_x101_64x4d_fpn_1x"),
)


def theirs(model: Model) -> dict:
    return dict(THEIRS[model.address.rpartition("/")[2]])


@pytest.mark.parametrize("name", NAMES)
def test_settings(name: str):
    """Pixels, strides, proposals and suppression are those of its configuration, and so is the AP."""
    model = MODELS[name]
    found, wanted = flatten(config_of(model)), theirs(model)
    assert model.address == wanted.pop("address")
    if name == "mmdetection/mask_rcnn_x101_32x8d_fpn_mstrain-poly_3x":
        wanted["ap"].append(39.5)  # of its README; the file of metadata has boxes only
    assert list(model.ap) == wanted.pop("ap")
    stds = [[round(1 / weight, 9) for weight in found["model.box_weights"]]]
    stds += [[round(1 / weight, 9) for weight in weights] for weights in found["model.box_cascade"]]
    assert stds == wanted.pop("box stds")
    del wanted["arrays"]
    assert {field: list(v) if isinstance(v := found[field], tuple) else v for field in wanted} == wanted


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in QUICK)],
)
def test_names_and_shapes(name: str):
    model = MODELS[name]
    arrays = layouts(make_blueprint(config_of(model).model, num_classes=80)).values()
    lines = sorted(f"{array.name} {array.shape}" for array in arrays)
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == theirs(model)["arrays"]
