"""``mrcnn-jax predict --video``, with an exported model that finds the same four objects in every image."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (the extra [video])")

import mrcnn_jax
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.video_files import open_video
from tests.export.stand_in import with_data, write_stand_in
from tests.make_video import damage, make_video
from tests.run_command import run_here


@pytest.fixture(scope="module")
def directory(tiny_config, tmp_path_factory) -> Path:
    """With the model ``model.mrcnn`` and the video ``in.mp4``, of 9 frames and a tone."""
    path = tmp_path_factory.mktemp("video")
    config = with_data(tiny_config, canvases=((64, 96), (96, 64)), long_side=96)
    write_stand_in(path / "model.mrcnn", config, batch_sizes=[1, 4])
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)
    make_video(path / "in.mp4", list(noise), audio="aac", options={"g": "3", "bf": "0"})
    return path


@pytest.fixture(scope="module")
def predict(directory):
    return partial(run_here, "predict", "--workdir=model.mrcnn", directory=directory)


def test_a_video_and_its_lines(predict, directory):
    done = predict("--video=in.mp4", "--output=out.mp4", "--batch_size=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "9 frames, 36 objects in out.jsonl, 9 of them (score at least 0.5) drawn in out.mp4"
    )
    with open_video(directory / "out.mp4") as video:
        assert len(list(video.frames())) == 9
    lines = [json.loads(line) for line in (directory / "out.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == [round(i / 25, 6) for i in range(9)]
    found = mrcnn_jax.load(directory / "model.mrcnn", batch_size=4)
    for line, frame in zip(lines, mrcnn_jax.predict_video(found, directory / "in.mp4"), strict=True):
        assert line == frame.to_json()
    again = predict("--video=in.mp4", "--output=out.mp4")
    assert again.returncode == 1
    assert again.stderr.startswith("error: out.mp4 and out.jsonl would be overwritten: remove what is not")


def test_a_second_start_of_the_same_command_leaves_the_first_alone(predict, directory, monkeypatch):
    """Which began to write while the model of the second was loaded."""
    load = Detector.__init__

    def load_meanwhile(self, *arguments, **options):
        load(self, *arguments, **options)
        (directory / "twice.partial.jsonl").write_text("of the first")

    monkeypatch.setattr(Detector, "__init__", load_meanwhile)
    done = predict("--video=in.mp4", "--output=twice.mp4")
    assert done.returncode == 1 and "the frames so far" not in done.stderr
    assert done.stderr.startswith(
        "error: twice.partial.jsonl would be overwritten: remove what is not needed"
    )
    assert [path.read_text() for path in directory.glob("twice*")] == ["of the first"]


def test_a_damaged_video_is_written_and_told(predict, directory):
    (directory / "bad.mp4").write_bytes((directory / "in.mp4").read_bytes())
    damage(directory / "bad.mp4", 4)
    done = predict("--video=bad.mp4", "--output=bad.jsonl", "--score_threshold=0.3")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "8 frames, 32 objects in bad.jsonl"
    assert "\nerror: bad.mp4: at 0.160 s: cannot be decoded: " in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_asked_of_a_video(predict, directory):
    done = predict("--video=in.mp4", "--output=no.mp4", "--tile=64", "--geojson", "photo.jpg")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --video=in.mp4: --tile, --geojson, photo.jpg cannot be given with")
    done = predict("--output=no", "--tracks", "photo.jpg")
    assert done.stderr.startswith("error: --tracks: objects are followed in a video only; name it by --video")
    done = predict("--video=none.mp4", "--output=no.mp4")
    assert done.stderr.startswith("error: none.mp4: there is no such file")
    (directory / "text.mp4").write_text("no video")
    done = predict("--video=text.mp4", "--output=no.mp4")
    assert done.stderr.startswith("error: text.mp4: cannot be read as a video: ")
    (directory / "photo.jpg").write_text("no video")
    done = predict("--video=photo.jpg", "--output=no.mp4")
    assert "; images are given without --video\n" in done.stderr
    assert not list(directory.glob("no*"))


def test_a_missing_library_is_named(predict, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = predict("--video=in.mp4", "--output=no.mp4")
    assert done.stderr.startswith("error: --video needs PyAV: pip install 'mrcnn_jax[video]'")
