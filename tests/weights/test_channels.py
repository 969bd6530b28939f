import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.mask_rcnn import normalize
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights import detectron2, mmdetection, torchvision
from mrcnn_jax.weights.backbone import backbone_layouts, load_backbone
from mrcnn_jax.weights.channels import (
    STEMS,
    can_convert,
    convert_kernel,
    convert_stem,
    describe_new_channels,
)
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.export import difference_lines, loading_lines
from mrcnn_jax.weights.layouts import write_model
from tests.weights.examples import arrays_of, changed

RGBD = {
    "pixel_mean": (123.675, 116.28, 103.53, 3000.0),
    "pixel_std": (58.395, 57.12, 57.375, 1500.0),
    "pixel_type": "float32",
}


def test_kernels_by_hand():
    rgb = np.array([[1, 2, 4]])
    assert convert_kernel(rgb, 5, axis=1).tolist() == [[1, 2, 4, 0, 0]]
    assert convert_kernel(rgb.T, 4, axis=0).tolist() == [[1], [2], [4], [0]]
    assert convert_kernel(rgb, 1, axis=1).tolist() == [[7]]
    assert convert_kernel(rgb, 2, axis=1).tolist() == [[7, 0]]
    assert convert_kernel(rgb, 3, axis=1).tolist() == rgb.tolist()


def test_what_was_learnt_of_a_channel_is_not_dropped():
    possible = {(3, 1), (3, 2), (3, 3), (3, 6), (4, 4), (4, 6), (1, 1)}
    impossible = {(1, 3), (2, 3), (1, 4), (4, 3), (6, 4), (4, 1)}
    assert all(can_convert(*pair) for pair in possible)
    assert not any(can_convert(*pair) for pair in impossible)
    with pytest.raises(ValueError, match="weights for 4 channels cannot be used for 3"):
        convert_kernel(np.zeros((1, 4)), 3, axis=1)


@pytest.mark.parametrize(
    ("backbone", "stem", "order"),
    [
        ("resnet", "conv1", "rgb"),
        ("resnet", "conv1", "bgr"),
        ("regnetx_4gf", "stem", "rgb"),
        ("convnext_t", "stem", "bgr"),
        ("vit_b", "patch_embed", "rgb"),
    ],
)
def test_a_widened_first_layer_gives_the_outputs_of_rgb(backbone, stem, order):
    """Whatever the further channels hold; and these get a gradient at once."""
    rgb = ModelConfig(
        backbone=backbone, backbone_depth=18, backbone_width=8, pixel_order=order,
        pixel_mean=(103.0, 116.0, 123.0), pixel_std=(57.0, 58.0, 59.0),
    )  # fmt: skip
    six = dataclasses.replace(
        rgb, pixel_mean=(*rgb.pixel_mean, 9.0, 3000.0, 0.5), pixel_std=(*rgb.pixel_std, 2.0, 900.0, 0.1)
    )
    name = f"backbone.{stem}.kernel"
    shape = make_blueprint(six, num_classes=1).shapes()[name].shape
    assert name in STEMS and shape[2] == 6
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*shape[:2], 3, shape[3])).astype(np.float32)
    wide = convert_stem({name: jnp.asarray(kernel)}, 6)[name]
    np.testing.assert_array_equal(wide[:, :, :3], kernel)

    images = jnp.asarray(rng.uniform(0, 255, (1, 32, 32, 6)), jnp.float32)
    sizes = jnp.array([[32, 32]], jnp.int32)
    wanted = convolve(jnp.asarray(kernel), normalize(images[..., :3], sizes, rgb))
    x = normalize(images, sizes, six)
    np.testing.assert_allclose(convolve(wide, x), wanted, atol=1e-5 * float(jnp.abs(wanted).max()))
    gradient = jax.grad(lambda kernel: (convolve(kernel, x) ** 2).sum())(wide)
    assert (jnp.abs(gradient[:, :, 3:]).max(axis=(0, 1, 3)) > 0).all()


@jax.jit
def convolve(kernel, images):
    return jax.lax.conv_general_dilated(
        images, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def test_gray_gives_the_outputs_of_rgb_with_equal_channels():
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(7, 7, 3, 8)), jnp.float32)
    gray = jnp.asarray(rng.normal(size=(1, 16, 16, 1)), jnp.float32)
    found = convolve(convert_stem({"backbone.conv1.kernel": kernel}, 1)["backbone.conv1.kernel"], gray)
    np.testing.assert_allclose(found, convolve(kernel, gray.repeat(3, axis=3)), atol=1e-4)


@pytest.mark.parametrize(
    ("system", "read"),
    [
        ("torchvision", torchvision.from_torchvision),
        ("detectron2", detectron2.from_detectron2),
        ("mmdetection", mmdetection.from_mmdetection),
    ],
)
def test_weights_of_other_systems_are_widened(system, read, masks_only):
    arrays = arrays_of(system, masks_only, classes=2)
    wanted = read(arrays, make_blueprint(masks_only.model, num_classes=2), source="rgb")
    wide = changed(masks_only, **RGBD)
    found = read(arrays, make_blueprint(wide.model, num_classes=2), source="rgb")
    for name, array in wanted.items():
        if name == "backbone.conv1.kernel":
            assert found[name].shape[2] == 4 and not found[name][:, :, 3].any()
            np.testing.assert_array_equal(found[name][:, :, :3], array)
        else:
            np.testing.assert_array_equal(found[name], array)
    arrays = arrays_of(system, wide, classes=2)
    with pytest.raises(ValueError, match=r"is \(8, 4, 7, 7\), must be \(8, 3, 7, 7\)"):
        read(arrays, make_blueprint(masks_only.model, num_classes=2), source="rgbd")


def test_a_backbone_is_widened(tmp_path, masks_only):
    blueprint = make_blueprint(masks_only.model, num_classes=2)
    layouts = backbone_layouts(blueprint, {"layer1.0.conv1.weight": np.zeros(1)})
    rgb = random_arrays(blueprint)
    np.savez(tmp_path / "r18.npz", **write_model({name: rgb[name] for name in layouts}, layouts))
    wide = make_blueprint(changed(masks_only, **RGBD).model, num_classes=2)
    arrays, absent = load_backbone(tmp_path / "r18.npz", wide)
    assert absent == ()
    np.testing.assert_array_equal(arrays["backbone.conv1.kernel"][:, :, :3], rgb["backbone.conv1.kernel"])
    assert not np.asarray(arrays["backbone.conv1.kernel"][:, :, 3]).any()


def random_arrays(blueprint):
    rng = np.random.default_rng(0)
    return {name: rng.random(x.shape, np.float32) for name, x in blueprint.shapes().items()}


def test_a_run_is_widened_and_only_its_pixels_may_differ(tmp_path, masks_only):
    categories = Categories((1, 2), ("a", "b"))
    weights = random_arrays(make_blueprint(masks_only.model, num_classes=2))
    with Checkpoints(tmp_path / "rgb", keep=1) as checkpoints:
        checkpoints.save(0, {name: jnp.asarray(x) for name, x in weights.items()})
    write_run(tmp_path / "rgb", masks_only, categories)
    import_weights("run", tmp_path / "rgb", changed(masks_only, **RGBD), tmp_path / "rgbd")
    _, found = load_weights(tmp_path / "rgbd")
    np.testing.assert_array_equal(found["backbone.conv1.kernel"][:, :, :3], weights["backbone.conv1.kernel"])
    # The same kind of pixels: then other means are another model, as ever.
    with pytest.raises(ValueError, match=r"different model:\n  model\.pixel_mean: \(1\.0, 1\.0, 1\.0\) in"):
        import_weights(
            "run", tmp_path / "rgb", changed(masks_only, pixel_mean=(1.0,) * 3), tmp_path / "other"
        )
    with pytest.raises(ValueError, match=r"different model:\n  model\.pixel_mean"):
        import_weights("run", tmp_path / "rgbd", masks_only, tmp_path / "back")


def test_new_channels_must_be_trained():
    model = ModelConfig(backbone_depth=18, backbone_width=4, mask=False, **RGBD)
    trained, frozen = (
        make_blueprint(dataclasses.replace(model, backbone_frozen_stages=stages), num_classes=1)
        for stages in (0, 1)
    )
    random = {name: jnp.asarray(x) for name, x in random_arrays(trained).items()}
    assert describe_new_channels(random, frozen) == ""
    widened = convert_stem({"backbone.conv1.kernel": random["backbone.conv1.kernel"][:, :, :3]}, 4)
    found = "the weights of backbone.conv1.kernel for channel 3 of the images (from 0) are 0"
    assert describe_new_channels(widened, trained) == f"{found}, to be trained"
    with pytest.raises(ValueError) as error:
        describe_new_channels(widened, frozen)
    assert str(error.value).startswith(f"{found} and frozen, so that it has no effect; set model.backbone_f")


def test_torchvision_is_told_of_the_channels(masks_only):
    categories, file = Categories((1,), ("a",)), Path("w.safetensors")
    said = loading_lines(file, changed(masks_only, **RGBD), categories)
    assert "  import safetensors.torch, torch, torchvision" in said
    assert "  model.backbone.body.conv1 = torch.nn.Conv2d(4, 8, 7, 2, 3, bias=False)" in said
    assert any("image_mean=[123.675, 116.28, 103.53, 3000.0], image_std=[58.395," in line for line in said)
    eight_bits = changed(masks_only, pixel_mean=(51.0,), pixel_std=(25.5,))
    said = loading_lines(file, eight_bits, categories)
    assert any("image_mean=[0.2], image_std=[0.1]" in line for line in said)
    assert not any("pixel_" in line for line in difference_lines(changed(masks_only, **RGBD)))
    assert not any("conv1" in line for line in loading_lines(file, masks_only, categories))
