"""Pre-trained vision transformers, under MAE's names."""

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.backbone import load_backbone


@pytest.fixture(scope="module")
def blueprint():
    config = ModelConfig(
        backbone="vit_b", backbone_width=8, backbone_frozen_stages=0, fpn_channels=8, mask=False
    )
    return make_blueprint(config, num_classes=1)


@pytest.fixture
def state_dict(blueprint):
    """MAE's encoder, an eighth as wide; arrays hold their own number."""
    arrays = {
        "cls_token": np.zeros((1, 1, 96)),
        "pos_embed": np.random.default_rng(0).normal(size=(1, 197, 96)),
        "patch_embed.proj.weight": np.random.default_rng(1).normal(size=(96, 3, 16, 16)),
        "patch_embed.proj.bias": np.ones(96),
        "norm.weight": np.ones(96),
        "norm.bias": np.ones(96),
        "decoder_pos_embed": np.zeros((1, 197, 64)),
    }
    shapes = {"attn.qkv": (288, 96), "attn.proj": (96, 96), "mlp.fc1": (384, 96), "mlp.fc2": (96, 384)}
    for block in range(12):
        for layer, shape in shapes.items():
            arrays[f"blocks.{block}.{layer}.weight"] = np.full(shape, block)
            arrays[f"blocks.{block}.{layer}.bias"] = np.full(shape[0], block)
        for norm in ("norm1", "norm2"):
            arrays[f"blocks.{block}.{norm}.weight"] = np.full(96, block)
            arrays[f"blocks.{block}.{norm}.bias"] = np.full(96, block)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def test_every_array_but_relative_positions_is_loaded(tmp_path, blueprint, state_dict):
    np.savez(tmp_path / "w.npz", **state_dict)
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ("relative positions",)
    of_model = {name for name in blueprint.shapes() if name.startswith("backbone.")}
    assert of_model - arrays.keys() == {name for name in of_model if ".rel_pos_" in name}
    # The class token's position is the first; rows of 14 follow.
    np.testing.assert_array_equal(
        arrays["backbone.pos_embed"][2, 3], state_dict["pos_embed"][0, 1 + 2 * 14 + 3]
    )
    # Output channel 1, input channel 2, row 3, column 4.
    kernel = state_dict["patch_embed.proj.weight"]
    assert arrays["backbone.patch_embed.kernel"][3, 4, 2, 1] == kernel[1, 2, 3, 4]
    assert arrays["backbone.blocks.7.fc1.kernel"].shape == (96, 384)
    assert (arrays["backbone.blocks.7.fc1.kernel"] == 7).all()


def test_relative_positions_of_a_detector(tmp_path, blueprint, state_dict):
    for block in range(12):
        length = 127 if block % 3 == 2 else 27
        for axis in "hw":
            state_dict[f"blocks.{block}.attn.rel_pos_{axis}"] = np.full((length, 8), block, np.float32)
    np.savez(tmp_path / "w.npz", **{f"backbone.net.{name}": array for name, array in state_dict.items()})
    arrays, absent = load_backbone(tmp_path / "w.npz", blueprint)
    assert absent == ()
    assert (arrays["backbone.blocks.5.attn.rel_pos_w"] == 5).all()


def test_another_depth(tmp_path, blueprint, state_dict):
    kept = {name: array for name, array in state_dict.items() if not name.startswith("blocks.11.")}
    np.savez(tmp_path / "w.npz", **kept)
    with pytest.raises(
        ValueError, match=r"w.npz: the arrays do not fit the model(?s:.*)12 missing: blocks.11"
    ):
        load_backbone(tmp_path / "w.npz", blueprint)


def test_patches_of_14_pixels(tmp_path, blueprint, state_dict):
    state_dict["patch_embed.proj.weight"] = np.zeros((96, 3, 14, 14), np.float32)
    np.savez(tmp_path / "w.npz", **state_dict)
    with pytest.raises(ValueError, match=r"w.npz: has patches of 14 x 14 pixels; must be 16 x 16, as in"):
        load_backbone(tmp_path / "w.npz", blueprint)
