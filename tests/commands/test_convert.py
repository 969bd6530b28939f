"""Weights of torchvision's from a file to detections and back to a file, from the command line."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.files import read_arrays, write_arrays
from mrcnn_jax.weights.torchvision import layouts
from tests.run_command import Outcome

Start = Callable[..., Outcome]

CONFIG_FILE = """
from mrcnn_jax.config.io import from_dict

def get_config():
    return from_dict({values!r})
"""
IMPORT = ("--source=torchvision", "--config=tiny.py", "--input=weights.npz")

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


@pytest.fixture(scope="module")
def directory(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the dataset ``shapes``, the settings ``tiny.py`` and ``weights.npz`` in torchvision's names."""
    path = tmp_path_factory.mktemp("convert")
    make_shapes(path / "shapes", train=1, val=2, image_size=64, seed=0)
    values = asdict(tiny_config)
    values["data"]["root"] = "shapes"
    values["test"]["score_threshold"] = 0.0
    (path / "tiny.py").write_text(CONFIG_FILE.format(values=values))
    categories = json.loads((path / "shapes" / "annotations" / "instances_val.json").read_text())[
        "categories"
    ]
    blueprint = make_blueprint(
        tiny_config.model, num_classes=len(categories), num_keypoints=len(categories[-1]["keypoints"])
    )
    rng = np.random.default_rng(0)
    arrays = {x.name: rng.uniform(0, 0.1, x.shape).astype(np.float32) for x in layouts(blueprint).values()}
    write_arrays(path / "weights.npz", arrays)
    return path


@pytest.fixture(scope="module")
def converted(start: Start) -> str:
    """The output of the command that created ``run``."""
    done = start("convert", *IMPORT, "--workdir=run", "--categories=shapes/annotations/instances_val.json")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_that_predicts_and_can_be_evaluated(converted: str, start: Start, directory: Path) -> None:
    assert converted.startswith("run: a run with 0.")
    assert converted.endswith(
        " M weights from weights.npz; categories (4): circle, square, triangle, figure\n"
    )
    done = start("predict", "--workdir=run", "--output=out", "shapes/val")
    assert done.returncode == 0, done.stderr
    found = json.loads((directory / "out" / "detections.json").read_text())
    assert {entry["category_id"] for entry in found} <= {1, 2, 3, 4}
    done = start("evaluate", "--workdir=run")
    assert done.returncode == 0, done.stderr
    assert json.loads((directory / "run" / "evaluation.json").read_text())["step"] == 0


def test_a_file_for_torchvision(converted: str, start: Start, directory: Path) -> None:
    export = ("--target=torchvision", "--workdir=run", "--output=out.safetensors", "--step=0")
    done = start("convert", *export)
    assert done.returncode == 0, done.stderr
    before, after = read_arrays(directory / "weights.npz"), read_arrays(directory / "out.safetensors")
    assert {name: x.shape for name, x in before.items()} == {name: x.shape for name, x in after.items()}
    assert f"out.safetensors: {len(after)} arrays of step 0 of run" in done.stdout
    assert "num_classes=5" in done.stdout
    done = start("convert", *export)
    assert done.returncode == 1
    assert done.stderr.startswith("error: out.safetensors: already exists")


def test_re_initialised_layers_are_listed(converted: str, start: Start, directory: Path) -> None:
    (directory / "pets.json").write_text(
        json.dumps(
            {
                "categories": [
                    {"id": 1, "name": "cat", "keypoints": ["head", "tail"]},
                    {"id": 2, "name": "circle"},
                ]
            }
        )
    )
    arguments = ("--source=run", "--config=tiny.py", "--input=run", "--new_categories=pets.json")
    done = start("convert", *arguments, "--workdir=pets", "--config.train.steps=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "re-initialised, to be trained: box_head.cls_score, box_head.bbox_pred, "
        "mask_head.mask_fcn_logits, keypoint_head.kps_score_lowres",
        "kept the outputs for 1 of 2 categories, by name: circle; new: cat",
    ]
    assert json.loads((directory / "pets" / "config.json").read_text())["train"]["steps"] == 3
    assert json.loads((directory / "pets" / "categories.json").read_text())["names"] == ["cat", "circle"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*IMPORT, "--workdir=run"), "run already exists; the directory of the new run must be new or empty"),
        ((*IMPORT, "--workdir=new"), "weights.npz has 4 classes, but COCO has 1 categories\n"),
        ((*IMPORT, "--workdir=new", "--output=x.npz"), "--source does not take --output; see --help"),
        (("--source=torchvision", "--workdir=new", "--input=weights.npz"), "--config is missing; see --help"),
        (("--source=torchvision", "--workdir=new", "--config=tiny.py"), "--input is missing; see --help"),
        (("--target=torchvision", "--workdir=run"), "--output is missing; see --help"),
        (
            ("--target=torchvision", "--workdir=run", "--output=x.npz", "--config=tiny.py", "--input=a"),
            "--target does not take --input, --config; see --help",
        ),
        (
            (
                "--source=torchvision",
                "--config=tiny.py",
                "--input=torchvision/x.y",
                "--workdir=new",
                "--key=a",
            ),
            "torchvision/x.y: No such file",
        ),
        (
            ("--source=run", "--config=tiny.py", "--input=torchvision/mask_rcnn", "--workdir=new"),
            "torchvision/mask_rcnn: there is no such file or directory; no published model is called",
        ),
        (
            ("--target=torchvision", "--workdir=run", "--output=x.npz", "--key=ema"),
            "--target does not take --key; see --help",
        ),
        (("--workdir=run",), "give --source to create a run from weights, or --target"),
    ],
)
def test_wrong_arguments_are_errors(
    converted: str, start: Start, directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = start("convert", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert not (directory / "new").exists() and not (directory / "x.npz").exists()
