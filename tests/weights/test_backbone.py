import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.backbone import load_backbone


@pytest.fixture(scope="module")
def blueprint():
    return make_blueprint(ModelConfig(backbone_depth=18, backbone_width=4, mask=False), num_classes=1)


@pytest.fixture(scope="module")
def shapes(blueprint):
    return blueprint.shapes()


@pytest.fixture
def state_dict(shapes):
    """A file's arrays in torchvision's names and layout, each filled with its own number."""
    leaves = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    arrays = {"fc.weight": np.zeros((10, 4)), "bn1.num_batches_tracked": np.zeros(())}
    for number, (name, shape) in enumerate(shapes.items()):
        if name.startswith("backbone."):
            prefix, _, leaf = name.removeprefix("backbone.").rpartition(".")
            dims = shape.shape if len(shape.shape) == 1 else tuple(shape.shape[i] for i in (3, 2, 0, 1))
            arrays[f"{prefix}.{leaves[leaf]}"] = np.full(dims, number, np.float32)
    return arrays


def test_every_array_finds_its_place(tmp_path, blueprint, shapes, state_dict):
    state_dict["conv1.weight"] = np.arange(4 * 3 * 7 * 7, dtype=np.float32).reshape(4, 3, 7, 7)
    np.savez(tmp_path / "w.npz", **state_dict)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ()
    assert arrays.keys() == {name for name in shapes if name.startswith("backbone.")}
    # out 1, in 2, row 3, column 4
    assert arrays["backbone.conv1.kernel"][3, 4, 2, 1] == state_dict["conv1.weight"][1, 2, 3, 4]
    number = list(shapes).index("backbone.layer2.0.downsample.1.var")
    np.testing.assert_array_equal(arrays["backbone.layer2.0.downsample.1.var"], number)


def test_a_stage_may_be_absent(tmp_path, blueprint, shapes, state_dict):
    kept = {name: array for name, array in state_dict.items() if not name.startswith("layer4")}
    np.savez(tmp_path / "w.npz", **kept)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ("layer4",)
    assert not any("layer4" in name for name in arrays)


def test_a_frozen_stage_may_not_be_absent(tmp_path, blueprint, state_dict):
    kept = {name: array for name, array in state_dict.items() if not name.startswith("layer1")}
    np.savez(tmp_path / "w.npz", **kept)
    with pytest.raises(ValueError, match=r"w.npz: has no layer1, which would stay random"):
        load_backbone(tmp_path / "w.npz", blueprint)


def test_a_file_without_a_backbone(tmp_path, blueprint):
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.zeros((10, 4))})
    with pytest.raises(ValueError, match=r"w.npz: has no conv1, bn1, layer1"):
        load_backbone(tmp_path / "w.npz", blueprint)


def test_all_mismatches_at_once(tmp_path, blueprint, shapes, state_dict):
    del state_dict["layer1.0.bn1.bias"]
    state_dict["layer1.0.conv1.weight"] = np.zeros((4, 4, 1, 1))
    state_dict["layer5.0.conv1.weight"] = np.zeros((4, 4, 1, 1))
    np.savez(tmp_path / "w.npz", **state_dict)
    with pytest.raises(ValueError) as error:
        load_backbone(tmp_path / "w.npz", blueprint)
    message = str(error.value)
    assert "w.npz" in message
    assert "1 missing: backbone.layer1.0.bn1.bias" in message
    assert "1 unexpected: backbone.layer5.0.conv1.kernel" in message
    assert "backbone.layer1.0.conv1.kernel is (1, 1, 4, 4), must be (3, 3, 4, 4)" in message


def test_no_code_runs_from_a_file(tmp_path, blueprint):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    from pathlib import Path

    np.savez(tmp_path / "w.npz", allow_pickle=True, **{"conv1.weight": np.array([Payload()], dtype=object)})
    with pytest.raises(ValueError, match=r"not an .npz archive of plain arrays"):
        load_backbone(tmp_path / "w.npz", blueprint)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_none(tmp_path, blueprint):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        load_backbone(tmp_path / "none.npz", blueprint)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz: not an .npz archive"):
        load_backbone(tmp_path / "text.npz", blueprint)


def test_the_real_file(shared):
    blueprint = make_blueprint(ModelConfig(), num_classes=1)
    arrays, absent = load_backbone(shared / "weights" / "resnet50_imagenet_c1_c4.npz", blueprint)
    assert absent == ("layer4",)
    assert arrays["backbone.conv1.kernel"].shape == (7, 7, 3, 64)
