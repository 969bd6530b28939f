"""Pre-trained ConvNeXt and Swin, under torchvision's names and those of the papers' code."""

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights import detectron2, torchvision
from mrcnn_jax.weights.backbone import load_backbone
from mrcnn_jax.weights.four_stages import author_layout, torchvision_layout
from mrcnn_jax.weights.layouts import shapes_of

BACKBONES = ("convnext_t", "swin_t")
LAYOUTS = {"torchvision": torchvision_layout, "authors": author_layout}


def _blueprint(backbone):
    return make_blueprint(ModelConfig(backbone=backbone, backbone_width=8, fpn_channels=8), num_classes=1)


def _arrays(backbone, system):
    """A file's arrays by its names, without norms of outputs; and ours. Each array has values of its own."""
    ours, theirs = {}, {}
    for number, (name, shape) in enumerate(shapes_of(_blueprint(backbone)).items()):
        if name.startswith("backbone.") and not name.startswith("backbone.norms."):
            layout = LAYOUTS[system](name.removeprefix("backbone."), shape, backbone)
            theirs[layout.name] = np.random.default_rng(number).normal(size=layout.shape).astype(np.float32)
            ours[name] = layout.read(theirs[layout.name])
    assert len(ours) == len(theirs)
    return theirs, ours


# What classifiers have besides: the last norm and layer, and Swin's constants.
OTHERS = {
    ("convnext_t", "torchvision"): ("classifier.0.weight", "classifier.2.weight"),
    ("convnext_t", "authors"): ("norm.weight", "head.weight"),
    ("swin_t", "torchvision"): ("norm.weight", "head.weight", "features.1.0.attn.relative_position_index"),
    ("swin_t", "authors"): (
        "norm.weight",
        "head.weight",
        "layers.0.blocks.1.attn_mask",
        "layers.0.blocks.1.attn.relative_position_index",
    ),
}


@pytest.mark.parametrize(("backbone", "system"), OTHERS)
def test_every_array_but_the_norms_of_the_outputs_is_loaded(tmp_path, backbone, system):
    theirs, ours = _arrays(backbone, system)
    others = {name: np.zeros(3, np.float32) for name in OTHERS[backbone, system]}
    np.savez(tmp_path / "w.npz", **theirs, **others)
    found, absent = load_backbone(tmp_path / "w.npz", _blueprint(backbone))
    assert absent == ("the outputs' norms",)
    assert found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_names_by_hand():
    def names(backbone, name, shape=(1,)):
        return [layout(name, shape, backbone).name for layout in (torchvision_layout, author_layout)]

    assert names("convnext_t", "stem_norm.scale") == [
        "features.0.1.weight",
        "downsample_layers.0.1.weight",
    ]
    assert names("convnext_t", "stages.2.downsample.conv.kernel", (2, 2, 3, 6)) == [
        "features.4.1.weight",
        "downsample_layers.2.1.weight",
    ]
    assert names("convnext_t", "stages.2.blocks.8.gamma") == ["features.5.8.layer_scale", "stages.2.8.gamma"]
    assert names("swin_t", "stages.1.downsample.reduction.kernel", (4, 2)) == [
        "features.2.reduction.weight",
        "layers.0.downsample.reduction.weight",
    ]
    assert names("swin_t", "stages.3.blocks.1.fc2.bias") == [
        "features.7.1.mlp.3.bias",
        "layers.3.blocks.1.mlp.fc2.bias",
    ]
    assert author_layout("norms.3.bias", (1,), "swin_t").name == "norm3.bias"


def test_a_backbone_of_a_detector_has_the_norms_of_the_outputs(tmp_path):
    theirs, _ = _arrays("swin_t", "authors")
    norms = {f"norm{i}.{leaf}": np.full(12 * 2**i, i) for i in range(4) for leaf in ("weight", "bias")}
    np.savez(tmp_path / "w.npz", **{f"backbone.{name}": x for name, x in (theirs | norms).items()})
    found, absent = load_backbone(tmp_path / "w.npz", _blueprint("swin_t"))
    assert absent == ()
    assert (np.asarray(found["backbone.norms.3.bias"]) == 3).all()


def test_files_that_do_not_fit(tmp_path):
    theirs, _ = _arrays("convnext_t", "torchvision")
    np.savez(tmp_path / "short.npz", **{k: x for k, x in theirs.items() if not k.startswith("features.5.8.")})
    with pytest.raises(ValueError, match=r"short.npz: the arrays do not fit(?s:.*)9 missing: features.5.8"):
        load_backbone(tmp_path / "short.npz", _blueprint("convnext_t"))
    np.savez(tmp_path / "resnet.npz", **{"layer1.0.conv1.weight": np.zeros((1, 1, 1, 1))})
    with pytest.raises(ValueError, match=r"resnet.npz: has other names\na backbone must be 'swin_t' with"):
        load_backbone(tmp_path / "resnet.npz", _blueprint("swin_t"))


@pytest.mark.parametrize("system", [torchvision, detectron2])
def test_neither_system_has_such_a_detector(system):
    with pytest.raises(ValueError, match=r"has no such model:\n  model.backbone is 'swin_t'; it must be"):
        system.layouts(_blueprint("swin_t"))
