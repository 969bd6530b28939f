"""ONNX files: what ONNX Runtime finds with them is what the detector finds, at any image size."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import validate
from mrcnn_jax.export import runner
from mrcnn_jax.export.model_file import Exportable
from mrcnn_jax.export.onnx_file import check_onnx, export_onnx
from mrcnn_jax.export.programs import image_dtype, make_program
from mrcnn_jax.inference.views import scales_of
from mrcnn_jax.models.variables import make_blueprint
from tests.export.stand_in import CATEGORIES, with_data
from tests.run_command import run_here

CANVAS = 64, 96
SIZES = CANVAS, (37, 71)  # of images on it

KINDS: dict[str, dict[str, Any]] = {
    "torchvision, masks and keypoints": {
        "anchor_rounded": True,
        "anchor_stride": "image",
        "rpn_smallest_side": 1e-3,
        "roi_level_rule": "torchvision",
        "roi_aligned": False,
    },
    "Detectron2, C4": {
        "features": "c4",
        "padding_multiple": 1,
        "backbone_depth": 50,
        "backbone_stride_in_1x1": True,
        "pixel_order": "bgr",
        "roi_sampling_ratio": 0,
        "keypoint": False,
    },
}


def of_kind(config: Config, changes: dict[str, Any]) -> Config:
    model = dataclasses.replace(config.model, **changes)
    train = dataclasses.replace(config.train, cascade_positive_ious=(0.6,) * len(model.box_cascade))
    changed = dataclasses.replace(config, model=model, train=train)
    changed = with_data(changed, canvases=(CANVAS, CANVAS[::-1]), long_side=96)
    validate(changed)
    return changed


def exportable(config: Config) -> Exportable:
    """A model of the config, with random weights that find different objects in different images."""
    blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9).folded()
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in blueprint.shapes().items():
        spread = 0.1 if name.endswith("bias") else np.prod(shape.shape[:-1]) ** -0.5
        if name == "backbone.conv1.kernel":
            spread *= config.model.pixel_std[0] / 58  # for activations of the same size whatever the unit
        spread *= 0.1 if "bbox_pred" in name else 3 if "cls_score" in name else 1
        arrays[name] = rng.normal(0, spread, shape.shape).astype(np.float32)
    categories = dataclasses.replace(CATEGORIES, keypoint_labels=(1, 2, 3, 4))
    return Exportable(config, categories, 7, blueprint, arrays, scales_of(config)[0])


def expected_outputs(
    model: Exportable, image: np.ndarray, canvas: tuple[int, int] = CANVAS
) -> dict[str, np.ndarray]:
    """The valid detections in an image, which lies on a canvas of noise."""
    height, width = image.shape[:2]
    noise = np.random.default_rng(1).integers(0, 256, (1, *canvas, image.shape[2]))
    pixels = noise.astype(image_dtype(model.config))
    pixels[0, :height, :width] = image
    program = PROGRAMS.setdefault(id(model), jax.jit(make_program(model.folded, model.config)))
    found = program(model.arrays, pixels, jnp.array([[height, width]], jnp.int32))
    valid = np.asarray(found.pop("valid")[0])
    return {name: np.asarray(values[0])[valid] for name, values in found.items()}


PROGRAMS: dict[int, Any] = {}


def images(channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, channels), np.uint8) for size in SIZES]


@pytest.fixture(scope="module", params=KINDS)
def model(request, tiny_config):
    return exportable(of_kind(tiny_config, KINDS[request.param]))


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return path


@pytest.mark.usefixtures("on_cpu")
def test_detections_equal_the_detectors(model, path):
    onnx.checker.check_model(str(path), full_check=True)
    onnx_model = runner.load_onnx(str(path))
    for image in images():
        found, expected = onnx_model.run(image.astype(np.float32)), expected_outputs(model, image)
        assert set(found) == set(expected) and len(expected["boxes"]) > 2
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-4)
        if "keypoints" in expected:
            np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=1e-3)


def test_what_the_file_says(path, model):
    written = onnx.load(path)
    assert [entry.domain for entry in written.opset_import] == [""] and written.producer_name == "mrcnn_jax"
    texts = {entry.key: json.loads(entry.value) for entry in written.metadata_props}
    assert texts["manifest"] == {"version": 1, "step": 7, "short_side": 64, "long_side": 96}
    assert texts["categories"]["names"] == ["ball", "figure", "cone", "cube"]
    assert texts["config"]["model"]["features"] == model.config.model.features
    (image,) = written.graph.input
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == [
        "height",
        "width",
        3,
    ]
    assert all(value.doc_string for value in [image, *written.graph.output])


def test_the_runner_resizes_and_pastes(path, model):
    """Its result for an image of any size is made of the outputs for the resized image."""
    onnx_model = runner.load_onnx(str(path), threads=1)
    image = np.random.default_rng(2).integers(0, 256, (80, 150, 3), np.uint8)
    (found,) = onnx_model([image])
    resized = runner.resize(image, (51, 96), model.config.data.resize)
    outputs = onnx_model.run(resized.astype(np.float32))
    scale = np.tile(np.float32([150 / 96, 80 / 51]), 2)
    np.testing.assert_array_equal(found["boxes"], np.clip(outputs["boxes"] * scale, 0, [150, 80, 150, 80]))
    assert found["names"] == [CATEGORIES.names[label - 1] for label in outputs["labels"]]
    assert [run["size"] for run in found["segmentations"]] == [[80, 150]] * len(found["names"])
    with pytest.raises(ValueError, match=r"image 0 must be a uint8 array \[H W 3\]"):
        onnx_model([image.astype(np.float32)])


def strict(model: Exportable) -> Exportable:
    """The model, such that it finds nothing."""
    test = dataclasses.replace(model.config.test, score_threshold=1.0)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, test=test))


def test_no_detections(model, tmp_path):
    export_onnx(strict(model), tmp_path / "strict.onnx")
    (found,) = runner.load_onnx(str(tmp_path / "strict.onnx"))(images()[:1])
    assert found["boxes"].shape == (0, 4) and found["crops"] == [] and found["names"] == []


def test_files_are_never_overwritten(path, model, tmp_path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"model\.onnx: already exists and is not overwritten"):
        export_onnx(model, path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    export_onnx(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == before


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "other.onnx"
    with pytest.raises(FileNotFoundError, match=r"other\.onnx"):
        runner.load_onnx(str(path))
    path.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"other\.onnx: is damaged or not from mrcnn-jax export"):
        runner.load_onnx(str(path))


def test_all_that_cannot_be_exported_is_named(tiny_config):
    changes = {
        "backbone": "swin_t",
        "backbone_deformable": "modulated",
        "non_local": "full",
        "roi_pooling": "pool",
        "mask_fcs": 2,
        "mask_loss": "softmax",
        "fpn_norm": "layer",
    }
    with pytest.raises(ValueError) as caught:
        check_onnx(dataclasses.replace(tiny_config.model, **changes))
    first, *lines, last = str(caught.value).splitlines()
    assert first == "the model cannot be exported as ONNX:" and last == "export it without --format=onnx"
    assert [line.split()[0] for line in lines] == [f"model.{name}" for name in changes]
    check_onnx(tiny_config.model)


def test_flags_of_programs_are_refused(tmp_path):
    flags = "--workdir=run", "--output=model.onnx", "--format=onnx"
    done = run_here("export", *flags, "--batch_sizes=2", directory=tmp_path)
    assert done.returncode == 1 and "--batch_sizes is not for --format=onnx" in done.stderr
