"""Pre-trained RegNets, under torchvision's names and those of pycls."""

from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.regnet import SIZES
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.backbone import load_backbone
from mrcnn_jax.weights.layouts import conv, plain, shapes_of
from mrcnn_jax.weights.regnet import torchvision_name
from tests.fixtures.torchvision_regnet import BLOCKS, MODELS

FIXTURES = Path(__file__).parents[1] / "fixtures"
PYCLS = FIXTURES / "pycls_regnet.pyth"


@pytest.fixture
def blueprint_of(monkeypatch):
    """Makes the blueprint of a RegNet of few blocks that is an eighth as wide."""

    def make(backbone, blocks=BLOCKS):
        monkeypatch.setitem(SIZES, backbone, SIZES[backbone]._replace(blocks=blocks))
        config = ModelConfig(backbone=backbone, backbone_width=8, fpn_channels=8, mask=False)
        return make_blueprint(config, num_classes=1)

    return make


def _of_torchvision(blueprint):
    """A file's arrays by torchvision's names, and ours. Each array has values of its own."""
    ours, theirs = {}, {}
    for number, (name, shape) in enumerate(shapes_of(blueprint).items()):
        if name.startswith("backbone."):
            layout = (conv if len(shape) == 4 else plain)(
                torchvision_name(name.removeprefix("backbone.")), shape
            )
            theirs[layout.name] = np.random.default_rng(number).normal(size=layout.shape).astype(np.float32)
            ours[name] = layout.read(theirs[layout.name])
    assert len(ours) == len(theirs)
    return theirs, ours


@pytest.mark.parametrize("backbone", MODELS)
def test_names_and_shapes_are_torchvisions(backbone, blueprint_of):
    theirs, _ = _of_torchvision(blueprint_of(backbone))
    with np.load(FIXTURES / "torchvision_regnet.npz") as archive:
        wanted = set(archive[f"{backbone}/arrays"].tolist())
    assert {f"{name} {array.shape}" for name, array in theirs.items()} == wanted


def test_every_array_of_torchvisions_is_loaded(tmp_path, blueprint_of):
    blueprint = blueprint_of("regnety_3_2gf")
    theirs, ours = _of_torchvision(blueprint)
    others = {"fc.weight": np.zeros((2, 2)), "stem.1.num_batches_tracked": np.zeros((), np.int64)}
    np.savez(tmp_path / "w.npz", **theirs, **others)
    found, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == () and found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_every_array_of_pyclss_is_loaded(blueprint_of):
    """Numbers are those that ``pycls_regnet.py`` prints."""
    blueprint = blueprint_of("regnetx_400mf", (1, 1, 1, 1))
    found, absent = load_backbone(PYCLS, blueprint)
    assert absent == ()
    assert found.keys() == {name for name in blueprint.shapes() if name.startswith("backbone.")}
    assert {name: float(np.ravel(found[f"backbone.{name}"])[0]) for name in PYCLS_NUMBERS} == PYCLS_NUMBERS


# "stem.bn.running_var", "s1.b1.proj.weight", "s1.b1.bn.bias", "s2.b1.f.b.weight", "s4.b1.f.c_bn.running_mean"
PYCLS_NUMBERS = {
    "stem.kernel": 0,
    "stem_norm.var": 4,
    "s1.0.downsample.0.kernel": 6,
    "s1.0.downsample.1.bias": 8,
    "s2.0.b.kernel": 42,
    "s4.0.c_norm.mean": 99,
}


def test_a_backbone_in_a_detector(tmp_path, blueprint_of):
    blueprint = blueprint_of("regnetx_400mf", (1, 1, 1, 1))
    theirs, ours = _of_torchvision(blueprint)
    np.savez(tmp_path / "w.npz", **{f"module.backbone.{k}": x for k, x in theirs.items()}, other=np.zeros(2))
    found, _ = load_backbone(tmp_path / "w.npz", blueprint)
    assert found.keys() == ours.keys()


def test_files_that_do_not_fit(tmp_path, blueprint_of):
    with pytest.raises(
        ValueError, match=r"pycls_regnet.pyth: the arrays do not fit(?s:.*)missing: s1.b1.f.se"
    ):
        load_backbone(PYCLS, blueprint_of("regnety_400mf", (1, 1, 1, 1)))
    np.savez(tmp_path / "resnet.npz", **{"layer1.0.conv1.weight": np.zeros((1, 1, 1, 1))})
    with pytest.raises(
        ValueError, match=r"resnet.npz: has other names\na backbone must be 'regnetx_400mf' wi"
    ):
        load_backbone(tmp_path / "resnet.npz", blueprint_of("regnetx_400mf", (1, 1, 1, 1)))
