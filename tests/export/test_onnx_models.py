"""ONNX files of every kind of model, in ONNX Runtime and OpenVINO, against the detector."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrcnn_jax.benchmarks.workloads import models
from mrcnn_jax.config import Config, presets
from mrcnn_jax.config.io import validate
from mrcnn_jax.export import runner
from mrcnn_jax.export.model_file import Exportable
from mrcnn_jax.export.onnx_file import export_onnx
from mrcnn_jax.inference.views import scales_of
from tests.export.test_onnx_file import KINDS, SIZES, expected_outputs, exportable, images, of_kind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_cpu")]  # traces and compiles models

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
    "dilated C5": {"features": "dc5", "backbone_depth": 50, "padding_multiple": 1, "keypoint": False},
    "RegNetX": {"backbone": "regnetx_400mf", "backbone_depth": 50, "keypoint": False},
    "RegNetY": {"backbone": "regnety_400mf", "backbone_depth": 50, "keypoint": False},
}


def openvino_run(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    openvino = pytest.importorskip("openvino", reason="needs requirements-slow.txt")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: {value.any_name: found for value, found in compiled([image]).items()}


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
    for image in images():
        expected = expected_outputs(model, image)
        for run in (onnx_model.run, other):
            assert_equal(run(image.astype(np.float32)), expected)


def test_openvino_finds_nothing_too(tiny_config, tmp_path):
    model = exportable(of_kind(tiny_config, {}))
    test = dataclasses.replace(model.config.test, score_threshold=1.0)
    strict = dataclasses.replace(model, config=dataclasses.replace(model.config, test=test))
    export_onnx(strict, tmp_path / "model.onnx")
    found = openvino_run(tmp_path / "model.onnx")(np.zeros((*SIZES[0], 3), np.float32))
    assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 28, 28)
    assert found["keypoints"].shape == (0, 9, 3)


def detectron2_keypoints() -> Config:
    config = presets.detectron2()
    config.model.keypoint, config.model.mask = True, False
    return config


@pytest.mark.parametrize(
    "make", [presets.torchvision, presets.detectron2, detectron2_keypoints], ids=lambda make: make.__name__
)
def test_at_full_width(tmp_path, make):
    """R50-FPN with random weights, which finds 100 objects, in an image that fills no canvas."""
    config = make()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, canvases=((480, 640),)))
    validate(config)
    bench = models.make_model(config)
    folded = bench.folded()
    arrays = {name: np.asarray(array) for name, array in folded.weights.items()}
    categories = models.make_categories(bench.config.model)
    model = Exportable(bench.config, categories, 0, folded.blueprint, arrays, scales_of(bench.config)[0])
    export_onnx(model, tmp_path / "model.onnx")
    image = bench.images(1)[0, :450, :619]
    expected = expected_outputs(model, image, canvas=(480, 640))
    assert len(expected["boxes"]) == 100
    assert_equal(runner.load_onnx(str(tmp_path / "model.onnx")).run(image.astype(np.float32)), expected)
