"""ONNX files of every kind of model, in ONNX Runtime and OpenVINO, against the detector."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from mrcnn_jax.config import Config, presets
from mrcnn_jax.config.io import validate
from mrcnn_jax.export import runner
from mrcnn_jax.export.onnx_file import export_onnx
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.export.stand_in import CATEGORIES
from tests.export.test_onnx_file import KINDS, expected_outputs, exportable, images, of_kind, strict
from tests.run_command import run_here

pytestmark = [
    pytest.mark.slow,  # traces and compiles models
    pytest.mark.usefixtures("on_cpu"),
    pytest.mark.filterwarnings("ignore:.*os.fork"),  # by the import of OpenVINO
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FULL_CANVAS = 480, 640
CASCADE = {"box_agnostic": True, "box_cascade": ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))}
FURTHER: dict[str, dict[str, Any]] = {
    "cascade": {**CASCADE, "mask_cascade": True, "keypoint": False, "roi_level_rule": "mmdetection"},
    "group norm": {
        **dict.fromkeys(("backbone_norm", "fpn_norm", "box_norm", "mask_norm"), "group"),
        "backbone_frozen_stages": 0,
        "box_convs": 2,
        "box_fcs": 1,
        "fpn_fuse": "avg",
    },
    "ResNeXt, agnostic masks": {
        "backbone_depth": 50,
        "backbone_groups": 4,
        "mask_agnostic": True,
        "keypoint": False,
    },
    "sigmoid scores, MMDetection": {"box_scores": "sigmoid", "box_scale_limits": "both", "rpn_convs": 2},
    "C4 with 7 x 7": {
        **KINDS["Detectron2, C4"],
        **{
            "res5_stride": 1,
            "box_pool_size": 7,
            "mask_pool_size": 7,
            "keypoint": True,
            "keypoint_pool_size": 7,
        },
    },
    "boxes alone": {"mask": False, "keypoint": False},
    "five channels": {
        "pixel_order": "bgr",
        "pixel_mean": (103.0, 116.0, 124.0, 90.0, 80.0),
        "pixel_std": (58.0,) * 5,
    },
    "dilated C5": {"features": "dc5", "backbone_depth": 50, "padding_multiple": 1, "keypoint": False},
    "RegNetX": {"backbone": "regnetx_400mf", "backbone_depth": 50, "keypoint": False},
    "RegNetY": {"backbone": "regnety_400mf", "backbone_depth": 50, "keypoint": False},
}


def openvino_run(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    openvino = pytest.importorskip("openvino", reason="needs requirements-slow.txt")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.name for output in onnx.load(path).graph.output]

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled([image])
        return {name: found[name] for name in names}

    return run


def assert_equal(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], *, boxes: float = 0.01
) -> None:
    """The tolerances that docs/onnx.md states: pixels, probabilities, and pixels of masks."""
    assert set(found) == set(expected) and len(expected["boxes"]) > 2
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=boxes)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    if "masks" in expected:
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-3)
        assert np.mean((found["masks"] >= 0.5) != (expected["masks"] >= 0.5)) <= 0.001
    if "keypoints" in expected:
        np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=0.01)


@pytest.mark.parametrize("kind", [*KINDS, *FURTHER])
def test_every_kind_in_both_runtimes(tiny_config, tmp_path, kind):
    model = exportable(of_kind(tiny_config, (KINDS | FURTHER)[kind]))
    export_onnx(model, tmp_path / "model.onnx")
    onnx_model = runner.load_onnx(str(tmp_path / "model.onnx"))
    other = openvino_run(tmp_path / "model.onnx")
    for image in images(onnx_model.channels):
        expected = expected_outputs(model, image)
        for run in (onnx_model.run, other):
            assert_equal(run(image.astype(np.float32)), expected)


@pytest.mark.parametrize("kind", [*KINDS, *FURTHER])
def test_both_runtimes_find_nothing_too(tiny_config, tmp_path, kind):
    model = exportable(of_kind(tiny_config, (KINDS | FURTHER)[kind]))
    export_onnx(strict(model), tmp_path / "model.onnx")
    onnx_model = runner.load_onnx(str(tmp_path / "model.onnx"))
    image = images(onnx_model.channels)[0].astype(np.float32)
    for run in (onnx_model.run, openvino_run(tmp_path / "model.onnx")):
        found = run(image)
        assert found["boxes"].shape == (0, 4) and found["scores"].shape == (0,)
        assert not model.config.model.mask or found["masks"].shape == (0, 28, 28)
        assert not model.config.model.keypoint or found["keypoints"].shape == (0, 9, 3)


def detectron2_keypoints() -> Config:
    config = presets.detectron2()
    config.model.keypoint, config.model.mask = True, False
    return config


@pytest.mark.parametrize(
    "make", [presets.torchvision, presets.detectron2, detectron2_keypoints], ids=lambda make: make.__name__
)
def test_at_full_width(tmp_path, make):
    """R50-FPN, which finds 100 objects, in an image that fills no canvas."""
    config = make()
    data = dataclasses.replace(config.data, canvases=(FULL_CANVAS, FULL_CANVAS[::-1]), test_short_side=480)
    data = dataclasses.replace(data, long_side=640, train_short_sides=(480,))
    config = dataclasses.replace(config, data=data)
    validate(config)
    model = exportable(config)
    export_onnx(model, tmp_path / "model.onnx")
    blocks = np.random.default_rng(0).integers(0, 256, (29, 39, 3), np.uint8)
    image = blocks.repeat(16, axis=0).repeat(16, axis=1)[:450, :619]
    expected = expected_outputs(model, image, canvas=FULL_CANVAS)
    assert len(expected["boxes"]) == 100
    assert_equal(runner.load_onnx(str(tmp_path / "model.onnx")).run(image.astype(np.float32)), expected)


def test_the_command_and_openvino_with_the_runner(tiny_config, tmp_path):
    """The commands and the code of docs/onnx.md: a run's file, and OpenVINO in place of ONNX Runtime."""
    config = of_kind(tiny_config, {})
    blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
    write_run(tmp_path / "run", config, CATEGORIES)
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(7, blueprint.initialize(jax.random.key(0)), {"nothing": jnp.zeros(1)})
    flags = "--workdir=run", "--output=model.onnx", "--format=onnx"
    done = run_here("export", *flags, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["model.onnx: step 7 of run"]
    path = tmp_path / "model.onnx"
    texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    model, other = runner.load_onnx(str(path)), runner.OnnxModel(texts, openvino_run(path))
    image = np.random.default_rng(2).integers(0, 256, (80, 150, 3), np.uint8)
    (found,), (expected,) = other([image]), model([image])
    assert found["names"] == expected["names"] and len(found["names"]) > 0
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.01)
    done = run_here("export", *flags, directory=tmp_path)
    assert done.returncode == 1 and "model.onnx: already exists and is not overwritten" in done.stderr
