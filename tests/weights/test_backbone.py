import dataclasses
import pickle

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.backbone import backbone_layouts, load_backbone
from mrcnn_jax.weights.download import cache_path
from mrcnn_jax.weights.zoo_models import BACKBONES, Weights


@pytest.fixture(scope="module")
def blueprint():
    return make_blueprint(ModelConfig(backbone_depth=18, backbone_width=4, mask=False), num_classes=1)


@pytest.fixture(scope="module")
def shapes(blueprint):
    return blueprint.shapes()


@pytest.fixture
def state_dict(shapes):
    """A state dict with torchvision's names and layouts, each array filled with its own number."""
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


def test_every_array_is_loaded_under_its_name(tmp_path, blueprint, shapes, state_dict):
    state_dict["conv1.weight"] = np.arange(4 * 3 * 7 * 7, dtype=np.float32).reshape(4, 3, 7, 7)
    np.savez(tmp_path / "w.npz", **state_dict)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ()
    assert arrays.keys() == {name for name in shapes if name.startswith("backbone.")}
    # Output channel 1, input channel 2, row 3, column 4.
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
    with pytest.raises(ValueError, match=r"w.npz: has no weights of layer1, which would stay random"):
        load_backbone(tmp_path / "w.npz", blueprint)


def test_a_file_without_a_backbone(tmp_path, blueprint):
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.zeros((10, 4))})
    with pytest.raises(ValueError, match=r"w.npz: has no weights of conv1, bn1, layer1"):
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
    for part in (
        "layer1.0.bn1.bias",
        "layer5.0.conv1.weight",
        "layer1.0.conv1.weight is (4, 4, 1, 1), must be (4, 4, 3, 3)",
    ):
        assert part in message


@pytest.mark.parametrize("prefix", ["module.", "module.encoder_q.", "backbone.body.", "model.backbone."])
@pytest.mark.parametrize("system", ["torchvision", "detectron2"])
def test_a_backbone_in_a_larger_checkpoint(tmp_path, blueprint, state_dict, prefix, system):
    np.savez(tmp_path / "w.npz", **state_dict)
    wanted, _ = load_backbone(tmp_path / "w.npz", blueprint)
    if system == "detectron2":
        del state_dict["fc.weight"], state_dict["bn1.num_batches_tracked"]
        state_dict = {_renamed(name, system): array for name, array in state_dict.items()}
    content = {f"{prefix}{name}": array for name, array in state_dict.items()}
    content |= {"rpn.head.conv.weight": np.zeros(2), f"{prefix}projector.0.weight": np.zeros(2)}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"state_dict": content, "epoch": 3}))
    found, absent = load_backbone(tmp_path / "w.pkl", blueprint)
    assert absent == () and found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_a_published_backbone_by_name(tmp_path, blueprint, state_dict, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = Weights("torchvision/small", "http://127.0.0.1:1/small.npz", None)
    monkeypatch.setitem(BACKBONES, weights.name, weights)
    with pytest.raises(OSError, match=r"small\.npz: cannot be downloaded"):
        load_backbone("torchvision/small", blueprint)
    np.savez(cache_path(weights), **state_dict)
    arrays, absent = load_backbone("torchvision/small", blueprint)
    assert absent == () and "backbone.conv1.kernel" in arrays


def test_a_deeper_backbone(tmp_path, blueprint, state_dict):
    deeper = make_blueprint(dataclasses.replace(blueprint.config, backbone_depth=34), num_classes=1)
    np.savez(tmp_path / "w.npz", **state_dict)
    with pytest.raises(ValueError, match=r"\nmodel\.backbone_depth is 34 in the config, 18 in the file$"):
        load_backbone(tmp_path / "w.npz", deeper)


def test_a_backbone_of_another_architecture(tmp_path, blueprint):
    np.savez(tmp_path / "w.npz", **{"blocks.0.attn.qkv.weight": np.zeros(2)})
    with pytest.raises(ValueError, match=r"w\.npz: has the names of timm's .*\na backbone must be a ResNet"):
        load_backbone(tmp_path / "w.npz", blueprint)


def test_no_code_runs_from_a_file(tmp_path, blueprint):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    from pathlib import Path

    np.savez(tmp_path / "w.npz", allow_pickle=True, **{"conv1.weight": np.array([Payload()], dtype=object)})
    with pytest.raises(ValueError, match=r"w\.npz: cannot be read"):
        load_backbone(tmp_path / "w.npz", blueprint)
    assert not (tmp_path / "ran").exists()


def test_missing_and_invalid_files(tmp_path, blueprint):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        load_backbone(tmp_path / "none.npz", blueprint)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz: cannot be read"):
        load_backbone(tmp_path / "text.npz", blueprint)


NAMES = {
    # torchvision's name: Detectron2's, Caffe2's
    "conv1.weight": ("stem.conv1.weight", "conv1_w"),
    "bn1.weight": ("stem.conv1.norm.weight", "res_conv1_bn_s"),
    "layer1.0.conv1.weight": ("res2.0.conv1.weight", "res2_0_branch2a_w"),
    "layer1.0.bn2.bias": ("res2.0.conv2.norm.bias", "res2_0_branch2b_bn_b"),
    "layer2.0.downsample.0.weight": ("res3.0.shortcut.weight", "res3_0_branch1_w"),
    "layer2.0.downsample.1.weight": ("res3.0.shortcut.norm.weight", "res3_0_branch1_bn_s"),
    "layer4.1.conv2.weight": ("res5.1.conv2.weight", "res5_1_branch2b_w"),
}


def _renamed(name: str, system: str) -> str:
    """The other system's name for torchvision's, by rules written independently of the loader."""
    module, leaf = name.rsplit(".", 1)
    parts = module.split(".")
    if system == "detectron2":
        if len(parts) == 1:
            return f"stem.conv1.{'' if parts[0] == 'conv1' else 'norm.'}{leaf}"
        unit = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}.get(".".join(parts[2:]))
        unit = unit or parts[2].replace("bn1", "conv1.norm").replace("bn2", "conv2.norm")
        return f"res{int(parts[0][5:]) + 1}.{parts[1]}.{unit}.{leaf}"
    ending = {"weight": "s" if "bn" in module or module.endswith("downsample.1") else "w", "bias": "b"}[leaf]
    if len(parts) == 1:
        return f"conv1_{ending}" if module == "conv1" else f"res_conv1_bn_{ending}"
    units = {"conv1": "branch2a", "bn1": "branch2a_bn", "conv2": "branch2b", "bn2": "branch2b_bn"}
    unit = units.get(parts[2]) or ("branch1" if parts[3] == "0" else "branch1_bn")
    return f"res{int(parts[0][5:]) + 1}_{parts[1]}_{unit}_{ending}"


@pytest.mark.parametrize("system", ["detectron2", "caffe2"])
def test_names_of_detectron2_and_caffe2(tmp_path, blueprint, state_dict, system):
    for name, names in NAMES.items():
        assert _renamed(name, system) == names[system == "caffe2"]
    del state_dict["fc.weight"], state_dict["bn1.num_batches_tracked"]
    np.savez(tmp_path / "torchvision.npz", **state_dict)
    wanted, _ = load_backbone(tmp_path / "torchvision.npz", blueprint)
    if system == "caffe2":
        state_dict = {name: array for name, array in state_dict.items() if "running" not in name}
    renamed = {_renamed(name, system): array for name, array in state_dict.items()}
    renamed |= {"fc1000_w": np.zeros((3, 3)), "conv1_b": np.zeros(4)} if system == "caffe2" else {}
    with (tmp_path / "R-18.pkl").open("wb") as file:
        pickle.dump(
            renamed if system == "caffe2" else {"model": renamed, "__author__": "torchvision"}, file, 2
        )
    found, absent = load_backbone(tmp_path / "R-18.pkl", blueprint)
    assert absent == () and found.keys() == wanted.keys()
    for name, array in found.items():
        if system == "caffe2" and name.endswith((".mean", ".var")):
            np.testing.assert_allclose(array, 0 if name.endswith("mean") else 1 - 1e-5, rtol=1e-6)
        else:
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_group_norms_of_caffe2(tmp_path):
    """The names of Detectron's R-50-GN; a model of other norms is told that it lacks their arrays."""
    config = ModelConfig(backbone_depth=50, backbone_width=32, backbone_norm="group")
    blueprint = make_blueprint(config, num_classes=1)
    kinds = {"kernel": "w", "scale": "s", "bias": "b"}
    units = {"downsample.0": "1", "downsample.1": "1_gn"}
    for number, letter in enumerate("abc", start=1):
        units |= {f"conv{number}": f"2{letter}", f"bn{number}": f"2{letter}_gn"}
    theirs, ours = {}, {}
    for number, (name, shape) in enumerate(blueprint.shapes().items()):
        if not name.startswith("backbone."):
            continue
        *module, leaf = name.removeprefix("backbone.").split(".")
        where = "conv1" if module == ["conv1"] else "conv1_gn"
        if len(module) > 1:
            unit = units[".".join(module[2:])]
            where = f"res{int(module[0][-1]) + 1}_{module[1]}_branch{unit}"
        ours[name] = np.full(shape.shape, number, np.float32)
        in_caffe2 = (
            tuple(shape.shape[axis] for axis in (3, 2, 0, 1)) if len(shape.shape) == 4 else shape.shape
        )
        theirs[f"{where}_{kinds[leaf]}"] = np.full(in_caffe2, number, np.float32)
    assert {"conv1_gn_s", "res2_0_branch2c_gn_b", "res4_0_branch1_gn_s", "res5_2_branch2a_w"} <= theirs.keys()
    np.savez(tmp_path / "w.npz", **theirs)
    found, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == () and found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    frozen = make_blueprint(dataclasses.replace(config, backbone_norm="frozen_batch"), num_classes=1)
    with pytest.raises(ValueError, match="has no weights of bn1, which would stay random"):
        load_backbone(tmp_path / "w.npz", frozen)


def test_stage_5_of_a_c4_model_is_loaded_into_its_heads(tmp_path):
    config = ModelConfig(
        features="c4", backbone_width=4, box_pool_size=14, box_fcs=0, mask=False, padding_multiple=1
    )
    blueprint = make_blueprint(config, num_classes=1)
    theirs = {
        layout.name: np.full(layout.shape, number, np.float32)
        for number, layout in enumerate(backbone_layouts(blueprint, {}).values())
    }
    np.savez(tmp_path / "w.npz", **theirs)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ()
    np.testing.assert_array_equal(arrays["res5.0.bn1.scale"], theirs["layer4.0.bn1.weight"])


def test_offsets_of_deformable_convolutions_keep_their_initial_values(tmp_path):
    config = ModelConfig(backbone_width=8, backbone_deformable="plain")
    blueprint = make_blueprint(config, num_classes=1)
    theirs = {
        layout.name: np.zeros(layout.shape, np.float32) for layout in backbone_layouts(blueprint, {}).values()
    }
    np.savez(tmp_path / "w.npz", **theirs)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    ours = {name for name in blueprint.shapes() if name.startswith("backbone.")}
    assert absent == () and ours - arrays.keys() == {name for name in ours if ".conv2.offset." in name}
    assert len(ours - arrays.keys()) == 2 * (4 + 6 + 3)


@pytest.mark.parametrize("system", ["torchvision", "detectron2", "caffe2"])
def test_a_non_local_block_keeps_its_initial_values(tmp_path, blueprint, state_dict, system):
    """No published backbone has one; all else must be in the file as ever."""
    config = dataclasses.replace(blueprint.config, non_local="subsampled")
    with_block = make_blueprint(config, num_classes=1)
    if system != "torchvision":
        kept = {n: x for n, x in state_dict.items() if system == "detectron2" or "running" not in n}
        ignored = ("fc.weight", "bn1.num_batches_tracked")
        state_dict = {_renamed(n, system): x for n, x in kept.items() if n not in ignored}
    np.savez(tmp_path / "w.npz", **state_dict)
    wanted, _ = load_backbone(tmp_path / "w.npz", blueprint)
    arrays, absent = load_backbone(tmp_path / "w.npz", with_block)
    assert absent == ("non_local",) and arrays.keys() == wanted.keys()
    missing = next(name for name in state_dict if name.startswith(("layer3.1", "res4.1", "res4_1")))
    np.savez(tmp_path / "w.npz", **{name: x for name, x in state_dict.items() if name != missing})
    with pytest.raises(ValueError, match=rf"1 missing: {missing}"):
        load_backbone(tmp_path / "w.npz", with_block)


def test_a_frozen_non_local_block_would_never_be_trained(tmp_path, blueprint, state_dict):
    np.savez(tmp_path / "w.npz", **state_dict)
    config = dataclasses.replace(blueprint.config, non_local="full", backbone_frozen_stages=4)
    with pytest.raises(ValueError, match=r"has no weights of non_local.*see model\.backbone_frozen_stages"):
        load_backbone(tmp_path / "w.npz", make_blueprint(config, num_classes=1))


def test_a_c4_model_without_heads_has_no_stage_5(tmp_path):
    config = ModelConfig(features="c4", backbone_width=4, mask=False, padding_multiple=1)
    whole = make_blueprint(config, num_classes=1)
    alone = make_blueprint(dataclasses.replace(config, box=False), num_classes=1)
    np.savez(tmp_path / "w.npz", **{x.name: np.ones(x.shape) for x in backbone_layouts(whole, {}).values()})
    arrays, absent = load_backbone(tmp_path / "w.npz", alone)
    assert absent == ()
    assert arrays.keys() == {name for name in alone.shapes() if name.startswith("backbone.")}


def test_the_real_file(shared):
    blueprint = make_blueprint(ModelConfig(), num_classes=1)
    arrays, absent = load_backbone(shared / "weights" / "resnet50_imagenet_c1_c4.npz", blueprint)
    assert absent == ("layer4",)
    assert arrays["backbone.conv1.kernel"].shape == (7, 7, 3, 64)
