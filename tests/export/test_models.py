"""Exports narrow models with random weights: the file finds what the detector finds, bit by bit."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mrcnn_jax
from mrcnn_jax.config import Config
from mrcnn_jax.config.io import validate
from mrcnn_jax.export import runner
from mrcnn_jax.export.programs import lower_program
from mrcnn_jax.export.runner.mrcnn_model import _deserialize
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.export.stand_in import CATEGORIES
from tests.run_command import run_here

pytestmark = pytest.mark.slow  # traces and compiles models

ONE_CASCADE = {"box_agnostic": True, "box_cascade": ((20.0, 20.0, 10.0, 10.0),)}
KINDS: dict[str, dict[str, Any]] = {
    "FPN, masks and keypoints": {},
    "FPN, keypoints": {"mask": False, "mask_convs": 4},
    "C4, masks": {"features": "c4", "padding_multiple": 1, "roi_sampling_ratio": 0, "keypoint": False},
    "cascade": {**ONE_CASCADE, "keypoint": False},
    "cascade of masks": {**ONE_CASCADE, "mask_cascade": True, "keypoint": False},
    "ViTDet": {
        "backbone": "vit_b",
        "backbone_depth": 50,
        "backbone_norm": "frozen_batch",
        "backbone_frozen_stages": 0,
        "padding_multiple": 64,
        **dict.fromkeys(("fpn_norm", "box_norm", "mask_norm"), "layer"),
        "box_convs": 1,
        "roi_sampling_ratio": 0,
        "keypoint": False,
    },
}


def of_kind(config: Config, kind: str) -> Config:
    """The tiny config with a model of this kind."""
    train = config.train
    if KINDS[kind].get("box_cascade"):
        train = dataclasses.replace(train, cascade_positive_ious=(0.6,))
    model = dataclasses.replace(config.model, **KINDS[kind])
    # The probabilities of random masks are on either side of these.
    threshold = 0.436 if model.features == "c4" else 0.45
    test = dataclasses.replace(config.test, mask_threshold=threshold)
    changed = dataclasses.replace(config, model=model, train=train, test=test)
    validate(changed)
    return changed


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Path]:
    """Writes a run of a config with random weights, in a directory that it returns."""

    def write_random(config: Config) -> Path:
        path = tmp_path_factory.mktemp("run")
        blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
        rng = np.random.default_rng(0)
        weights = {
            name: jnp.asarray(np.abs(drawn) if name.endswith("var") else drawn)
            for name, shape in blueprint.shapes().items()
            for drawn in [rng.normal(0, 0.1, shape.shape).astype(np.float32)]
        }
        write_run(path, config, dataclasses.replace(CATEGORIES, keypoint_labels=(1, 2, 3, 4)))
        with Checkpoints(path, keep=1) as checkpoints:
            checkpoints.save(7, weights, {"nothing": jnp.zeros(1)})
        return path

    return write_random


def export(workdir: Path, *flags: str) -> Path:
    path = workdir / "exported"
    done = run_here("export", f"--workdir={workdir}", f"--output={path}", *flags, directory=workdir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{path}: step 7 of {workdir}"
    return path


@pytest.fixture(scope="module")
def workdir(write, tiny_config):
    return write(tiny_config)


@pytest.fixture(scope="module")
def model(workdir):
    return export(workdir, "--platforms=cpu", "--canvas=64x64")


def draw_images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_bits_of_the_detector(write, tiny_config, kind):
    config = of_kind(tiny_config, kind)
    workdir = write(config)
    found = mrcnn_jax.load(export(workdir, "--platforms=cpu"))
    images = draw_images((40, 60), (64, 64), (200, 150))
    for own, expected in zip(found(images), mrcnn_jax.load(workdir)(images), strict=True):
        assert len(expected) and expected.to_coco(1) == own.to_coco(1)
        for field in ("boxes", "scores", "labels", "keypoints"):
            np.testing.assert_array_equal(getattr(own, field), getattr(expected, field), strict=True)
        assert (expected.crops is not None, expected.keypoints is not None) == (
            config.model.mask,
            config.model.keypoint,
        )
        assert not config.model.keypoint or expected.keypoints.any()
        if config.model.mask:
            pixels = np.concatenate([crop.mask.ravel() for crop in expected.crops])
            assert pixels.any() and not pixels.all()


def test_the_file_alone(model, tmp_path):
    """Without this package, in a folder of its own, on an image that has to be shrunk."""
    (tmp_path / "model.mrcnn").write_bytes(model.read_bytes())
    (image,) = draw_images((200, 150))
    np.save(tmp_path / "image.npy", image)
    others = "import sys\nsys.modules |= dict.fromkeys(['mrcnn_jax', 'flax', 'orbax', 'PIL', 'tensorflow'])\n"
    (tmp_path / "sitecustomize.py").write_text(others)  # importing any of them raises ImportError

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "model.mrcnn", *arguments]
        environment = {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = run("image.npy")
    assert done.returncode == 0, done.stderr
    found, (expected,) = json.loads(done.stdout), runner.load(str(model))([image])
    assert found["image"] == "image.npy" and found["names"] == expected["names"]
    assert [run["size"] for run in found["segmentations"]] == [[200, 150]] * len(found["names"])
    np.testing.assert_allclose(
        found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3
    )  # other options of XLA
    (tmp_path / "photo.jpg").write_bytes(b"")
    advice, error = run("photo.jpg").stderr.splitlines()
    assert "JAX_COMPILATION_CACHE_DIR=FOLDER keeps the compiled programs" in advice
    assert error == "error: photo.jpg: needs Pillow (pip install pillow), unlike .npy files"
    assert run().stderr == "usage: python model.mrcnn image.npy photo.jpg ...\n"
    assert "error: none.npy: No such file or directory\n" in run("none.npy").stderr
    np.save(tmp_path / "gray.npy", image[..., 0])
    error = run("image.npy", "gray.npy").stderr.splitlines()[-1]
    assert error == "error: gray.npy: image 0 must be a uint8 array [H W 3], got uint8 [200, 150]"
    (tmp_path / "empty.npy").touch()
    assert "error: empty.npy: " in run("empty.npy").stderr and "Traceback" not in run("empty.npy").stderr


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_programs_for_absent_platforms(tiny_config, platform):
    blueprint = make_blueprint(tiny_config.model, num_classes=4, num_keypoints=9)
    content = lower_program(blueprint.folded(), tiny_config, platform=platform, canvas=(64, 64), batch_size=2)
    exported = _deserialize(content, "")
    assert exported.platforms == (platform,) and exported.nr_devices == 1
    assert [aval.shape for aval in exported.in_avals[-2:]] == [(2, 64, 64, 3), (2, 2)]
    assert ("tpu_custom_call" in exported.mlir_module()) == (platform == "tpu")  # RoIAlign's kernels


@pytest.mark.parametrize("kind", ["FPN, masks and keypoints", "FPN, keypoints", "C4, masks", "cascade"])
def test_a_saved_model(write, tiny_config, kind):
    import tensorflow as tf

    workdir = write(of_kind(tiny_config, kind))
    saved = export(workdir, "--format=saved_model")
    loaded = tf.saved_model.load(str(saved))
    assert set(loaded.signatures) == {"serving_default", "detect_1x64x64"}
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    outputs = loaded.signatures["serving_default"](
        images=tf.constant(image[None]), image_sizes=tf.constant([[64, 64]], tf.int32)
    )
    own, expected = (
        {name: values.numpy()[0] for name, values in outputs.items()},
        mrcnn_jax.load(workdir)(image),
    )
    assert own["valid"].all() and len(expected) == len(own["valid"])
    np.testing.assert_array_equal(own["labels"], expected.labels)
    for name in ("boxes", "scores"):
        np.testing.assert_allclose(own[name], getattr(expected, name), rtol=1e-4, atol=1e-3)
    if expected.keypoints is not None:
        np.testing.assert_allclose(own["keypoints"], expected.keypoints, rtol=1e-4, atol=1e-3)
    flags = f"--workdir={workdir}", f"--output={saved}", "--format=saved_model"
    assert "already exists" in run_here("export", *flags, directory=workdir).stderr
