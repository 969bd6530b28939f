"""Predicts with a run of random weights, through the library and the command line."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import mrcnn_jax
from mrcnn_jax.config import Config
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.run_command import run_here

ROOT = Path(__file__).parents[2]
CATEGORIES = Categories(
    ids=(3, 7, 8, 9),
    names=("ball", "figure", "cone", "cube"),
    keypoint_labels=(2,),
    keypoint_names=tuple("abcdefghi"),
    skeleton=((0, 1),),
    sigmas=(0.05,) * 9,
)

pytestmark = [
    pytest.mark.usefixtures("shared_programs"),
    # Programs are shared by detectors of other batch sizes.
    pytest.mark.filterwarnings("ignore:inference is compiled again"),
]


@pytest.fixture(scope="module")
def workdir(tiny_config: Config, tiny_blueprint: Blueprint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    weights = {
        name: jnp.asarray(
            np.abs(rng.normal(0, 0.1, array.shape))
            if name.endswith("var")
            else rng.normal(0, 0.1, array.shape),
            jnp.float32,
        )
        for name, array in tiny_blueprint.shapes().items()
    }
    write_run(path, tiny_config, CATEGORIES)
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(7, weights, {"nothing": jnp.zeros(1)})
    return path


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((40, 60), (50, 30), (64, 64))
    ]


def test_results_do_not_depend_on_the_batch(workdir: Path, images: list[np.ndarray]) -> None:
    detector = mrcnn_jax.load(workdir, batch_size=3)
    assert detector.step == 7 and detector.categories == CATEGORIES
    for image, in_batch in zip(images, detector(images), strict=True):
        result = detector(image)  # in a batch filled up with blank images
        assert 0 < len(result) <= 8
        assert result.image_size == image.shape[:2]
        assert result.masks is not None and result.masks.shape == (len(result), *image.shape[:2])
        assert result.keypoints is not None and result.keypoints.shape == (len(result), 9, 3)
        np.testing.assert_allclose(in_batch.boxes, result.boxes, atol=1e-2)
        np.testing.assert_allclose(in_batch.scores, result.scores, atol=1e-4)
        np.testing.assert_array_equal(in_batch.labels, result.labels)


def test_missing_step_and_weights_of_another_model_are_errors(workdir: Path, tiny_config: Config) -> None:
    with pytest.raises(ValueError, match="no checkpoint of step 8"):
        mrcnn_jax.load(workdir, step=8)
    model = dataclasses.replace(tiny_config.model, mask_channels=16)
    wider = dataclasses.replace(tiny_config, model=model)
    with pytest.raises(ValueError, match="do not fit the model"):
        mrcnn_jax.load(workdir, config=wider)


def test_predict_script(workdir: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, image in zip(("b.png", "a.jpg", "c.bmp"), images, strict=True):
        Image.fromarray(image).save(photos / name)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    output = tmp_path / "out"
    inputs = photos, tmp_path / "broken.jpg", photos / "a.jpg"
    arguments = f"--workdir={workdir}", f"--output={output}", "--score_threshold=0"
    done = run_here("predict", *arguments, *map(str, inputs), directory=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "broken.jpg: cannot be read" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.startswith("4 images, 32 objects in "), done.stdout
    assert sorted(path.name for path in output.iterdir()) == [
        "a-2.png", "a.png", "b.png", "c.png", "detections.json",
    ]  # fmt: skip

    found = json.loads((output / "detections.json").read_text())
    assert [entry["image_id"] for entry in found] == [1] * 8 + [2] * 8 + [3] * 8 + [5] * 8
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 50, "width": 50} for i in range(1, 6)],
        "categories": [{"id": i} for i in CATEGORIES.ids],
        "annotations": [],
    }
    truth.createIndex()
    assert len(truth.loadRes(str(output / "detections.json")).getAnnIds()) == 32
