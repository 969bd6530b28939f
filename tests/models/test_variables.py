import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import arrays_of, make_blueprint


def test_build_and_arrays_of_are_inverses(tiny_blueprint, tiny_weights):
    again = arrays_of(tiny_blueprint.build(tiny_weights))
    assert again.keys() == tiny_weights.keys() == tiny_blueprint.shapes().keys()
    for name, array in tiny_weights.items():
        np.testing.assert_array_equal(again[name], array)


def test_split_groups(tiny_blueprint, tiny_weights):
    params, frozen, batch_stats = tiny_blueprint.split(tiny_weights)
    assert len(params) + len(frozen) + len(batch_stats) == len(tiny_weights)
    assert set(frozen) == {"backbone.conv1.kernel"} | {
        f"backbone.bn1.{leaf}" for leaf in ("scale", "bias", "mean", "var")
    }
    assert "backbone.layer1.0.bn1.scale" in params
    assert set(name.rpartition(".")[2] for name in batch_stats) == {"mean", "var"}


def test_frozen_batch_norm_of_trained_stages_is_frozen():
    blueprint = make_blueprint(ModelConfig(backbone_width=2), num_classes=2)
    params, frozen, _ = blueprint.split({n: jnp.zeros(s.shape) for n, s in blueprint.shapes().items()})
    assert "backbone.layer2.0.conv1.kernel" in params
    assert "backbone.layer2.0.bn1.scale" in frozen
    assert "backbone.layer1.0.conv1.kernel" in frozen


@pytest.mark.slow
def test_the_same_key_gives_the_same_weights(tiny_config):
    config = dataclasses.replace(tiny_config.model, mask=False, keypoint=False)
    blueprint = make_blueprint(config, num_classes=2)
    again = blueprint.initialize(jax.random.key(0))
    drawn = blueprint.draw(jax.random.key(0))
    for name, array in blueprint.initialize(jax.random.key(0)).items():
        np.testing.assert_array_equal(again[name], array)
        np.testing.assert_allclose(drawn[name], array, rtol=1e-5, atol=1e-7)


def test_equal_arguments_share_a_blueprint_that_later_changes_of_the_config_leave_alone(tiny_config):
    config = dataclasses.replace(tiny_config.model)
    counts = {"num_classes": 2, "num_keypoints": 5}
    first = make_blueprint(config, **counts)
    assert make_blueprint(tiny_config.model, **counts) is first
    assert make_blueprint(config, num_classes=3, num_keypoints=5).num_classes == 3
    config.mask = False
    assert first.config == tiny_config.model
    assert not any(name.startswith("mask_head") for name in make_blueprint(config, **counts).shapes())


@pytest.mark.parametrize("head", ["mask", "keypoint"])
def test_config_switches_heads_off(tiny_config, head):
    config = dataclasses.replace(tiny_config.model, **{head: False})
    names = make_blueprint(config, num_classes=3, num_keypoints=5).shapes()
    assert not any(name.startswith(f"{head}_head") for name in names)


def test_r50_fpn_parameter_count():
    """torchvision's maskrcnn_resnet50_fpn has 44,401,393; we predict no box and no mask for background."""
    shapes = make_blueprint(ModelConfig(), num_classes=90).shapes()
    batch_norm = sum(np.prod(s.shape) for n, s in shapes.items() if ".bn" in n or ".downsample.1." in n)
    total = sum(np.prod(s.shape) for s in shapes.values()) - batch_norm
    assert total == 44_401_393 - 4 * 1025 - 257
