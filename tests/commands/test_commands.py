"""Training, evaluation and prediction from the command line, on a tiny dataset."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.inference.detector import Detector
from tests.run_command import Outcome, run_killed

Start = Callable[..., Outcome]

CONFIG_FILE = """
from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig

VALUES = {values!r}

def get_config():
    return Config(
        model=ModelConfig(**VALUES["model"]),
        data=DataConfig(**VALUES["data"]),
        train=TrainConfig(**VALUES["train"]),
        test=TestConfig(**VALUES["test"]),
    )
"""


@pytest.fixture(scope="module")
def directory(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the dataset ``shapes`` and the settings ``tiny.py``."""
    path = tmp_path_factory.mktemp("commands")
    make_shapes(path / "shapes", train=8, val=3, image_size=64, seed=0)
    values = asdict(tiny_config)
    values["data"]["root"] = "shapes"
    values["train"] |= {"log_every": 1, "eval_every": 4}
    (path / "tiny.py").write_text(CONFIG_FILE.format(values=values))
    return path


def test_training_data_are_counted_and_drawn(start: Start, directory: Path) -> None:
    done = start("show", "--config=tiny.py", "--output=seen", "--count=3", "--html")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    content = json.loads((directory / "shapes/annotations/instances_train.json").read_text())
    objects = len(content["annotations"])
    assert lines[0] == f"shapes/annotations/instances_train.json: 8 images, {objects} objects"
    assert "canvas 64x64: 100.0% of the batches" in lines
    assert lines[-2] == "seen/batches.png: 3 images from step 0 on"
    assert lines[-1] == "seen/data.html: the same as a page, with charts"
    assert (directory / "seen" / "data.html").read_text().count('src="data:image/webp') == 3
    with Image.open(directory / "seen" / "batches.png") as sheet:
        assert sheet.size == (8 + 3 * 648, 8 + 22 + 640 + 8)


def test_own_augmentation_is_drawn(start: Start, directory: Path) -> None:
    """Every image becomes white, and its objects disappear, but for the rectangles that are erased after."""
    (directory / "mine.py").write_text(
        "from mrcnn_jax.data.own_augment import Example\n"
        "def white(example, generator):\n"
        "    example.image[:] = 255\n"
        "    return Example(example.image, *(getattr(example, name)[:0] for name in\n"
        "        ('boxes', 'masks', 'keypoints', 'labels', 'crowd')))\n"
    )
    options = ("--config.data.erase=1.0", "--config.data.quarter_turns", "--config.data.copy_paste=1.0")
    done = start("show", "--config=tiny.py", "--output=own", "--count=2", "--augment=mine.py:white", *options)
    assert done.returncode == 0, done.stderr
    with Image.open(directory / "own" / "batches.png") as sheet:
        pixels = np.array(sheet)[30:-8, 8:-8]
    assert (pixels == (124, 116, 104)).all(axis=2).any() and (pixels == 255).all(axis=2).mean() > 0.5
    for command, rest in (("show", "--output=own"), ("train", "--workdir=own_run")):
        done = start(command, "--config=tiny.py", rest, "--augment=mine.py:black")
        assert done.returncode == 1
        assert done.stderr.startswith("error: --augment=mine.py:black: mine.py has no function black\n")
    assert not (directory / "own_run").exists()


def test_data_cannot_be_drawn_into_a_file(start: Start, directory: Path) -> None:
    (directory / "taken").write_text("mine")
    for output in ("taken", "taken/below"):
        done = start("show", "--config=tiny.py", f"--output={output}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: --output={output}: taken is not a folder\n")
    assert (directory / "taken").read_text() == "mine"


@pytest.fixture(scope="module")
def trained(start: Start, shared_programs: None) -> str:
    """What the training of ``run`` printed."""
    done = start("train", "--config=tiny.py", "--workdir=run")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_reports_its_steps_and_saves(trained: str, directory: Path) -> None:
    losses, scores = [line for line in trained.splitlines() if line.startswith("step 4")]
    assert losses.startswith("step 4/4  loss ")
    assert scores.startswith("step 4: bbox AP ") and scores.endswith("; pictures in run/validation/4")
    assert trained.splitlines()[-1] == "trained for 4 steps; checkpoints are in run/checkpoints"
    assert (directory / "run" / "checkpoints" / "4").is_dir()
    assert (directory / "run" / "config.json").exists()


@pytest.mark.slow
def test_records_train_as_their_folder_does(trained: str, start: Start) -> None:
    done = start(
        "prepare", "--images=shapes/train", "--annotations=shapes/annotations/instances_train.json",
        "--output=records", "--workers=1", "--mask_grid=28",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = "records/coco_objects/instances_train/1.0.0"
    assert done.stdout.splitlines()[-1].startswith(f"{folder}: 8 records, ")
    done = start("train", "--config=tiny.py", "--workdir=again", f"--config.data.train_records=../{folder}")
    assert done.returncode == 0, done.stderr
    losses, wanted = (re.findall(r"loss .* lr \S+", output) for output in (done.stdout, trained))
    assert losses and losses == wanted


def test_the_making_of_batches_is_timed(start: Start, directory: Path) -> None:
    done = start("benchmark", "data", "--config=tiny.py", "--images=4", "--turns=1", "--json=data.json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads((directory / "data.json").read_text())
    assert numbers["images_per_second"] > 0 and numbers["bytes_per_batch"] > 2 * 64 * 64 * 3
    assert list(numbers["stages"]) == ["read", "decode", "objects", "resize", "masks", "batch"]


def test_another_learning_rate_in_the_same_directory_is_refused(trained: str, start: Start) -> None:
    done = start("train", "--config=tiny.py", "--workdir=run", "--config.train.learning_rate=0.5")
    assert done.returncode == 1
    assert done.stderr.startswith("error: run holds a run with other settings:\n  train.learning_rate: 0.5")
    assert "Traceback" not in done.stderr


def test_mistyped_field_is_answered_with_the_nearest(start: Start) -> None:
    done = start("train", "--config=tiny.py", "--workdir=other", "--config.train.stepz=3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown field config.train.stepz; nearest: steps\n")


def test_evaluation_file(trained: str, start: Start, directory: Path) -> None:
    done = start("evaluate", "--workdir=run", "--step=best", "--output=scores.json")
    assert done.returncode == 0, done.stderr
    assert "written to scores.json" in done.stdout
    metrics = json.loads((directory / "scores.json").read_text())
    assert (metrics["step"], metrics["annotations"]) == (4, "shapes/annotations/instances_val.json")
    names = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"}
    assert metrics["bbox"].keys() == metrics["segm"].keys() == names
    assert metrics["keypoints"].keys() == names - {"APs", "AR100"} | {"AR20"}
    assert all(
        value is None or 0 <= value <= 100
        for kind in ("bbox", "segm", "keypoints")
        for value in metrics[kind].values()
    )
    assert not (directory / "run" / "evaluation.json").exists()


@pytest.mark.slow
def test_test_time_augmentation_is_announced(trained: str, start: Start, directory: Path) -> None:
    done = start("evaluate", "--workdir=run", "--output=augmented.json", "--config.test.flip")
    assert done.returncode == 0, done.stderr
    line = (
        "test-time augmentation: 2 views of every image; programs to compile: 2 per canvas, up to 2 for 1 "
        "canvas"
    )
    assert done.stdout.splitlines()[1] == line
    assert json.loads((directory / "augmented.json").read_text())["segm"]["AP"] is not None
    flags = ("--output=augmented", "--pictures=none", "--config.test.flip")
    done = start("predict", "--workdir=run", *flags, "shapes/val")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == line


def test_records_are_evaluated_as_their_folder_is(trained: str, start: Start, directory: Path) -> None:
    done = start(
        "prepare", "--images=shapes/val", "--annotations=shapes/annotations/instances_val.json",
        "--output=records", "--workers=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = "shapes/../records/coco_objects/instances_val/1.0.0"
    records = f"--config.data.val_records={folder.removeprefix('shapes/')}"
    for arguments in (("--output=files.json",), ("--output=records.json", records)):
        done = start("evaluate", "--workdir=run", *arguments)
        assert done.returncode == 0, done.stderr
    wanted, found = (json.loads((directory / name).read_text()) for name in ("files.json", "records.json"))
    assert found == wanted | {"annotations": folder} and found["bbox"]["AP"] is not None
    done = start("evaluate", "--workdir=run", f"--output={folder}/index.npz", records)
    assert done.returncode == 1
    assert "index.npz is an input and would be overwritten" in done.stderr


def test_predictions_and_what_cannot_be_read(trained: str, start: Start, directory: Path) -> None:
    inputs = directory / "inputs"
    inputs.mkdir()
    photo = next((directory / "shapes" / "val").iterdir())
    shutil.copy(photo, inputs / "photo.jpg")
    (inputs / "broken.jpg").write_bytes(b"no image")
    (directory / "empty").mkdir()
    (directory / "out").mkdir()
    Image.new("RGB", (3, 3), (1, 2, 3)).save(directory / "out" / "photo.png")  # not of a former output

    done = start("predict", "--workdir=run", "--output=out", "--step=4", "inputs", "empty", "nowhere")
    assert done.returncode == 1
    assert [line.partition(":")[2].partition(":")[0].strip() for line in done.stderr.splitlines()] == [
        "empty",
        "nowhere",
        "inputs/broken.jpg",
    ], done.stderr
    assert sorted(path.name for path in (directory / "out").iterdir()) == [
        "detections.json",
        "photo-2.png",
        "photo.png",
    ]
    with Image.open(directory / "out" / "photo.png") as untouched:
        assert untouched.size == (3, 3)
    with Image.open(directory / "out" / "photo-2.png") as picture:
        assert np.asarray(picture).shape == (640, 640, 3)

    entries = json.loads((directory / "out" / "detections.json").read_text())
    assert entries and {entry["file_name"] for entry in entries} == {"photo.jpg"}
    assert _load_results(directory / "out" / "detections.json", images=2).getAnnIds()


def test_predictions_as_a_dataset_without_pictures(trained: str, start: Start, directory: Path) -> None:
    arguments = ("predict", "--workdir=run", "--output=bare", "--pictures=none", "--score_threshold=0")
    done = start(*arguments, "--save_dataset=bare/annotations.json", "shapes/val")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (directory / "bare").iterdir()) == [
        "annotations.json",
        "detections.json",
    ]
    dataset = COCO(str(directory / "bare" / "annotations.json"))
    found = json.loads((directory / "bare" / "detections.json").read_text())
    assert len(dataset.getImgIds()) == 3 and len(dataset.getAnnIds()) == len(found)
    number = len(found)
    assert done.stdout.splitlines()[-1] == (
        f"3 images, {number} objects in bare/detections.json, {number} of them (score at least 0) "
        "annotated in bare/annotations.json"
    )
    photo = sorted((directory / "shapes" / "val").iterdir())[0].relative_to(directory)
    done = start(*arguments, f"--save_dataset={photo}", "shapes/val")
    assert done.returncode == 1
    assert f"{photo} is an input and would be overwritten; choose another --save_dataset" in done.stderr


@pytest.mark.slow
def test_an_interrupted_prediction_goes_on(
    trained: str, start: Start, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(output: str, *arguments: str) -> Outcome:
        return start("predict", "--workdir=run", f"--output={output}", *arguments, "shapes/val")

    assert predict("at_once").returncode == 0
    attempt = Detector.attempt

    def interrupted(detector: Detector, sources: Any, **options: Any) -> Any:
        yield from attempt(detector, list(sources)[:2], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "attempt", interrupted)
        done = predict("later")
    assert done.returncode == 130
    kept = "later/detections.partial.jsonl"
    assert f"the results of 2 of 3 images are in {kept}; run the same command to continue" in done.stderr
    assert not (directory / "later" / "detections.json").exists()

    done = predict("later", "--config.test.nms_iou=0.4")
    assert done.returncode == 1
    assert "\n  --config.test.nms_iou: 0.4 here, 0.5 there\n" in done.stderr
    done = predict("later", "--batch_size=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"2 of 3 images are done already ({kept})"
    for name in ("later", "at_once"):
        assert len(list((directory / name).iterdir())) == 4
    entries, wanted = (
        json.loads((directory / name / "detections.json").read_text()) for name in ("later", "at_once")
    )
    assert [entry["image_id"] for entry in entries] == [entry["image_id"] for entry in wanted]


KILLED = """
import os, signal
from mrcnn_jax import commands
from mrcnn_jax.inference.partial_results import PartialResults

append = PartialResults.append

def append_and_die(self, image, found):
    append(self, image, found)
    if len(self._lines) == 2:
        with self.path.open("ab") as file:
            file.write(b'{"size": [64, 6')
        os.kill(os.getpid(), signal.SIGKILL)

PartialResults.append = append_and_die
commands.main()
"""


@pytest.mark.slow
def test_the_images_of_a_list_for_cocos_server(trained: str, start: Start, directory: Path) -> None:
    """A list without annotations, killed while a line is written, gives the file of an uninterrupted run."""
    content = json.loads((directory / "shapes/annotations/instances_val.json").read_text())
    listed = [entry | {"id": 900 + entry["id"]} for entry in content["images"]][::-1]
    info = {"info": {}, "images": listed, "licenses": [], "categories": content["categories"]}
    (directory / "image_info_test-dev.json").write_text(json.dumps(info))
    shutil.copytree(directory / "shapes/val", directory / "test")
    shutil.copy(directory / "test" / listed[0]["file_name"], directory / "test/not_listed.jpg")

    def arguments(output: str) -> tuple[str, ...]:
        flags = (f"--output={output}", "--pictures=none", "--coco=image_info_test-dev.json")
        return ("predict", "--workdir=run", *flags, "test")

    done = start(*arguments("whole"))
    assert done.returncode == 0, done.stderr
    run_killed(KILLED, *arguments("killed"), directory=directory)
    assert [path.name for path in (directory / "killed").iterdir()] == ["detections.partial.jsonl"]
    done = start(*arguments("killed"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 of 3 images are done already")
    assert [path.name for path in (directory / "killed").iterdir()] == ["detections.json"]
    written = (directory / "whole/detections.json").read_bytes()
    assert (directory / "killed/detections.json").read_bytes() == written

    entries = json.loads(written)
    ids = list(dict.fromkeys(entry["image_id"] for entry in entries))
    assert ids == [entry["id"] for entry in listed]
    allowed = {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert {frozenset(entry) - {"keypoints"} for entry in entries} == {frozenset(allowed)}
    truth = COCO()
    truth.dataset = info | {"annotations": []}
    truth.createIndex()
    assert len(truth.loadRes(str(directory / "killed/detections.json")).getAnnIds()) == len(entries)


def test_a_list_needs_its_one_folder(start: Start, directory: Path) -> None:
    def error(*arguments: str) -> str:
        done = start("predict", "--workdir=run", "--output=never", "--coco=x.json", *arguments)
        assert done.returncode == 1 and not (directory / "never").exists()
        return done.stderr

    assert "--coco=x.json: name the one folder that has its images" in error("a.jpg")
    assert "--coco=x.json: name the one folder that has its images" in error("shapes/val", "shapes/train")
    assert "give only one of the two" in error("--annotations=x.json", "shapes/val")


def test_no_image_at_all_writes_nothing(start: Start, directory: Path) -> None:
    (directory / "no_images").mkdir()
    done = start("predict", "--workdir=run", "--output=nothing", "no_images")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no_images: no images in this folder")
    assert not (directory / "nothing").exists()


def test_step_must_be_a_number_or_best(start: Start) -> None:
    done = start("evaluate", "--workdir=run", "--step=last")
    assert done.returncode == 1
    assert 'must be the step of a checkpoint, such as 500, or "best"' in done.stderr


def _load_results(path: Path, *, images: int) -> Any:
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 64, "width": 64} for i in range(1, images + 1)],
        "categories": [{"id": i} for i in range(1, 10)],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        return truth.loadRes(str(path))
