"""What an evaluation writes and prints, with scores that are given and a model that finds nothing."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.json_files import write_json
from mrcnn_jax.training import monitor
from mrcnn_jax.training.monitor import Monitor
from mrcnn_jax.types import Detections

IMAGES = ("monday/photo.jpg", "tuesday/photo.jpg", "third.jpg", "fourth.jpg", "fifth.jpg")


def find_nothing(images, image_sizes):
    count = len(images)
    return Detections(
        boxes=np.zeros((count, 1, 4), np.float32),
        scores=np.zeros((count, 1), np.float32),
        labels=np.zeros((count, 1), np.int32),
        valid=np.zeros((count, 1), bool),
    )


@pytest.fixture
def evaluate(tiny_config, tiny_blueprint, tmp_path, monkeypatch):
    """Evaluates as of a step with the metrics that are given, in the run ``tmp_path / "run"``."""
    for number, name in enumerate(IMAGES):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (640, 32), (number, 0, 0)).save(path, "PNG")
    images = [{"id": i, "file_name": name, "height": 32, "width": 640} for i, name in enumerate(IMAGES)]
    categories = [{"id": 1, "name": "ball"}]
    write_json(tmp_path / "val.json", {"images": images, "annotations": [], "categories": categories})
    data = dataclasses.replace(
        tiny_config.data, root=str(tmp_path), val_images="val", val_annotations="val.json"
    )
    train = dataclasses.replace(tiny_config.train, eval_every=1)
    config = dataclasses.replace(tiny_config, data=data, train=train)
    source = FolderSource(read_coco(tmp_path, images="val", annotations="val.json"), mask_grid=0)
    monkeypatch.setattr(monitor, "make_predict_fn", lambda *_: lambda _: find_nothing)

    def run(step, metrics, services=()):
        monkeypatch.setattr(monitor, "evaluate", lambda *_, **__: metrics | {"per_category": {}})
        of_run = Monitor(
            tmp_path / "run", tiny_blueprint, config, source.categories, source, services=services
        )
        with of_run.writing(after_step=0):
            return of_run.evaluate(step, {})

    return run


def test_pictures_of_a_step_and_the_line_that_says_where(evaluate, tmp_path, capsys):
    scores = evaluate(400, {"bbox": {"AP": 33.14}, "segm": {"AP": 22.04}, "keypoints": {"AP": None}})
    assert scores == {"bbox": 33.14, "segm": 22.04}
    folder = tmp_path / "run" / "validation" / "400"
    assert capsys.readouterr().out == f"step 400: bbox AP 33.1, segm AP 22.0; pictures in {folder}\n"
    pictures = sorted(folder.iterdir())
    assert [path.name for path in pictures] == ["0.png", "1.png", "2.png", "3.png"]
    for number, path in enumerate(pictures):
        with Image.open(path) as picture:
            assert picture.size == (2 * 640 + 8, 32)  # what is annotated, beside what was found
            assert picture.getpixel((0, 0)) == picture.getpixel((648, 0)) == (number, 0, 0)


def test_a_step_replaces_its_own_pictures_alone(evaluate, tmp_path):
    folder = tmp_path / "run" / "validation"
    (folder / "4").mkdir(parents=True)
    kept = [folder / "0.png", folder / "4" / "mine.png"]
    for path in (*kept, folder / "4" / "0.png"):
        path.write_text("mine")
    evaluate(4, {"bbox": {"AP": 1.0}})
    assert [path.read_text() for path in kept] == ["mine", "mine"]
    with Image.open(folder / "4" / "0.png") as picture:
        assert picture.size == (2 * 640 + 8, 32)


def test_without_objects_there_is_no_score_to_print(evaluate, capsys):
    assert evaluate(4, {"bbox": {"AP": None}}) == {}
    assert capsys.readouterr().out.startswith("step 4: no objects to measure AP on; pictures in ")


def test_only_the_main_process_writes_and_prints(evaluate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(monitor.hosts, "is_main_process", lambda: False)
    assert evaluate(4, {"bbox": {"AP": 1.0}}) == {"bbox": 1.0}
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_a_service_that_cannot_be_opened_leaves_none_open(evaluate, monkeypatch):
    closed = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def close(self, *, failed):
            closed.append((self.name, failed))

    def open_service(name, workdir):
        if name == "mlflow":
            raise ConnectionError("no server")
        return Fake(name)

    monkeypatch.setattr(monitor, "TensorBoardWriter", lambda *_: Fake("tensorboard"))
    monkeypatch.setattr(monitor, "open_service", open_service)
    with pytest.raises(ConnectionError, match="no server"):
        evaluate(4, {}, services=("wandb", "mlflow"))
    assert closed == [("tensorboard", True), ("wandb", True)]
