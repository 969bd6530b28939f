"""Exports a run of random weights, and compares the file's results with the detector's."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import mrcnn_jax
from mrcnn_jax.config import Config
from mrcnn_jax.export import runner
from mrcnn_jax.export.model_file import check_exportable, export_model, load_exportable
from mrcnn_jax.export.programs import lower_program
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.run_command import run_here

CATEGORIES = Categories(
    ids=(3, 7, 8, 9),
    names=("ball", "figure", "cone", "cube"),
    keypoint_labels=(3,),
    keypoint_names=tuple("abcdefghi"),
    sigmas=(0.05,) * 9,
)

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def workdir(tiny_config: Config, tiny_blueprint: Blueprint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    weights = {
        name: jnp.asarray(np.abs(drawn) if name.endswith("var") else drawn)
        for name, shape in tiny_blueprint.shapes().items()
        for drawn in [rng.normal(0, 0.1, shape.shape).astype(np.float32)]
    }
    write_run(path, tiny_config, CATEGORIES)
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(7, weights, {"nothing": jnp.zeros(1)})
    return path


@pytest.fixture(scope="module")
def model(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.mrcnn"
    done = run_here(
        "export", f"--workdir={workdir}", f"--output={path}", "--platforms=cpu", directory=path.parent
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first == "lowering programs/cpu-1x64x64.stablehlo"
    assert last == f"{path}: step 7 of {workdir}"
    return path


def test_its_results_are_the_detectors_bit_by_bit(workdir, model):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 60), (50, 30), (64, 64), (200, 150))
    ]
    loaded = runner.load(str(model))
    for found, result in zip(loaded(images), mrcnn_jax.load(workdir)(images), strict=True):
        assert len(result) and result.keypoints.any()
        assert set(found) == {"boxes", "scores", "labels", "names", "crops", "segmentations", "keypoints"}
        for name in ("boxes", "scores", "labels", "keypoints"):
            np.testing.assert_array_equal(found[name], getattr(result, name), strict=True)
        assert found["names"] == result.names and found["segmentations"] == result.segmentations
        for (top, left, mask), crop in zip(found["crops"], result.crops, strict=True):
            assert (top, left) == (crop.top, crop.left)
            np.testing.assert_array_equal(mask, crop.mask)
        assert loaded.to_coco(found, 5) == result.to_coco(5)


def test_images_must_be_rgb_pixels(model):
    with pytest.raises(ValueError, match=r"image 1 must be a uint8 array \[H W 3\] \(RGB\)"):
        runner.load(str(model))([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)])


def test_what_the_file_says(model, tiny_config):
    with zipfile.ZipFile(model) as archive:
        manifest, config = (json.loads(archive.read(f"{name}.json")) for name in ("manifest", "config"))
    assert manifest["version"] == 1 and manifest["step"] == 7
    assert manifest["preprocessing"] == {"short_side": 64, "long_side": 64, "resize": "detectron2"}
    assert manifest["categories"]["names"] == list(CATEGORIES.names)
    assert config["test"]["detections"] == tiny_config.test.detections


def test_a_damaged_file(model, tmp_path):
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1  # in the weights
    (tmp_path / "model.mrcnn").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.mrcnn: .*Bad CRC-32"):
        runner.load(str(tmp_path / "model.mrcnn"))


@pytest.mark.slow  # starts a process
def test_the_runner_alone_as_a_script(model, tmp_path):
    script = Path(runner.__file__).read_text(encoding="utf-8")
    script += "\n    assert not {'flax', 'orbax', 'mrcnn_jax', 'PIL', 'tensorflow'} & set(sys.modules)\n"
    (tmp_path / "runner.py").write_text(script)
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    command = [sys.executable, "runner.py", str(model), "image.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)
    assert entries and {entry["file_name"] for entry in entries} == {"image.npy"}


@pytest.mark.slow  # traces the model for each platform
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_programs_for_absent_platforms(tiny_blueprint, tiny_config, platform):
    content = lower_program(
        tiny_blueprint.folded(), tiny_config, platform=platform, canvas=(64, 64), batch_size=2
    )
    exported = runner._deserialize(content, "")
    assert exported.platforms == (platform,) and exported.nr_devices == 1
    assert [aval.shape for aval in exported.in_avals[-2:]] == [(2, 64, 64, 3), (2, 2)]
    assert ("tpu_custom_call" in exported.mlir_module()) == (platform == "tpu")  # RoIAlign's kernels


def test_what_cannot_be_exported(workdir, model, tiny_config, tmp_path):
    flipped = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, flip=True))
    with pytest.raises(ValueError, match=r"test-time augmentation \(test\.scales, test\.flip\) merges"):
        check_exportable(flipped)
    with pytest.raises(ValueError, match="canvas 32x32 is not one of the config's, which are 64x64"):
        load_exportable(workdir, canvases=[(32, 32)])
    exportable = load_exportable(workdir)
    with pytest.raises(FileExistsError, match=r"model\.mrcnn: already exists and is not overwritten"):
        export_model(exportable, model)
    with pytest.raises(ValueError, match="there is no folder"):
        export_model(exportable, tmp_path / "none" / "model.mrcnn")
    with pytest.raises(ValueError, match="platform rocm is unknown; there are cpu, cuda, tpu"):
        export_model(exportable, tmp_path / "model.mrcnn", platforms=["rocm"])
    with pytest.raises(ValueError, match=r"batch sizes \(\[0, 2\]\) must be at least 1"):
        export_model(exportable, tmp_path / "model.mrcnn", batch_sizes=[2, 0])
    for flag, message in (
        ("--canvas=64", "--canvas=64: must be HEIGHTxWIDTH, such as 800x1344"),
        ("--batch_sizes=1,b", "--batch_sizes=b: must be numbers from 1"),
    ):
        done = run_here("export", f"--workdir={workdir}", "--output=new.mrcnn", flag, directory=tmp_path)
        assert done.returncode == 1 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # compiles the program in TensorFlow
def test_a_saved_model(workdir, model, tmp_path):
    import tensorflow as tf

    flags = f"--workdir={workdir}", "--output=saved", "--format=saved_model"
    done = run_here("export", *flags, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert set(loaded.signatures) == {"serving_default", "detect_1x64x64"}
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    outputs = loaded.signatures["serving_default"](
        images=tf.constant(image[None]), image_sizes=tf.constant([[64, 64]], tf.int32)
    )
    own = {name: values.numpy()[0] for name, values in outputs.items()}
    runs = runner.load(str(model))
    found, (expected,) = runs._finish(own, (64, 64), (64, 64)), runs([image])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    for name in ("boxes", "scores", "keypoints"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-3)
    assert "already exists" in run_here("export", *flags, directory=tmp_path).stderr
