"""Objects in the frames of a video, by a model that finds one in each: its score is the frame's red."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (the extra [video])")

from mrcnn_jax.inference import video
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import COLORS
from mrcnn_jax.inference.video import FrameResult, predict_video
from mrcnn_jax.inference.video_output import VideoOutputs, write_video
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.video_files import Video, VideoFrame, open_video
from tests.make_video import LOSSLESS, damage, make_video, packets_of

REDS = [0, 51, 102, 153, 204, 255, 51]  # scores 0, 0.2, ...


@pytest.fixture
def detector(model, config, categories):
    return Detector(model, config, categories, batch_size=2)


@pytest.fixture
def source(tmp_path):
    images = [np.full((32, 48, 3), red, np.uint8) for red in REDS]
    return make_video(tmp_path / "in.mkv", images, **LOSSLESS, audio="aac")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_frames_by_hand(detector, source, model):
    found = list(predict_video(detector, source))
    assert [frame.frame.index for frame in found] == list(range(7))
    assert [round(255 * frame.result.scores[0]) for frame in found] == REDS
    assert [frame.result.boxes.tolist() for frame in found] == [[[0, 0, 48, 32]]] * 7
    assert [(frame.frame.image == red).all() for frame, red in zip(found, REDS, strict=True)] == [True] * 7
    assert len(model.batches) == 4


def test_few_frames_are_held_however_long_the_video_is(detector, source, monkeypatch):
    decoded = 0

    def frames(self):
        nonlocal decoded
        for index in range(200):
            decoded += 1
            yield VideoFrame(index, index / 25, index, 1, np.zeros((32, 48, 3), np.uint8), False)

    monkeypatch.setattr(Video, "frames", frames)
    most = 0
    for number, _ in enumerate(predict_video(detector, source)):
        most = max(most, decoded - number)
    assert number == 199 and most < 30


def test_a_video_is_closed_when_the_caller_stops(detector, source):
    with open_video(source) as opened:
        results = predict_video(detector, opened)
        assert next(results).frame.index == 0
        results.close()
    assert len(list(predict_video(detector, source))) == 7


def test_drawn_video_and_lines(detector, source, tmp_path):
    outputs = VideoOutputs.of(tmp_path / "out.mp4")
    done = write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert (done.frames, done.objects, done.drawn, done.problems, done.left_out) == (7, 7, 3, [], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.jsonl", "out.mp4"]
    lines = lines_of(outputs.lines)
    assert [(line["frame"], line["time"]) for line in lines] == [(i, round(i / 25, 6)) for i in range(7)]
    (ball,) = lines[3]["objects"]
    assert (ball["image_id"], ball["category"], ball["category_id"]) == (3, "ball", 3)
    assert ball["bbox"] == [0, 0, 48, 32] and ball["score"] == pytest.approx(0.6)
    assert ball["segmentation"]["size"] == [32, 48] and "track" not in ball and "damaged" not in lines[3]
    with open_video(outputs.video) as drawn:
        frames = list(drawn.frames())
    assert [frame.time for frame in frames] == [line["time"] for line in lines]
    assert frames[0].image.shape == (448, 672, 3)  # enlarged, as pictures are
    red, green, _ = frames[5].image[224, 336].astype(int)  # the mask over white, in the category's colour
    assert red - green > 50 and np.ptp(frames[0].image[224, 336].astype(int)) < 10
    sounds = [data for _, data in packets_of(source, "audio")]
    assert [data for _, data in packets_of(outputs.video, "audio")] == sounds


def test_lines_alone(detector, source, tmp_path):
    outputs = VideoOutputs.of(tmp_path / "out.jsonl")
    done = write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert (done.frames, done.drawn) == (7, 3) and len(lines_of(tmp_path / "out.jsonl")) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.jsonl"]


def test_what_an_interruption_keeps(detector, source, tmp_path, monkeypatch):
    outputs = VideoOutputs.of(tmp_path / "out.mp4")
    append = video.FrameResult.to_json
    ready = []

    def interrupted(self):
        ready.append(self)
        if len(ready) == 5:
            raise KeyboardInterrupt
        return append(self)

    monkeypatch.setattr(video.FrameResult, "to_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert outputs.existing() == [] and len(outputs.unfinished.existing()) == 2
    lines = lines_of(tmp_path / "out.partial.jsonl")
    with open_video(tmp_path / "out.partial.mp4") as kept:
        assert len(list(kept.frames())) == len(lines) >= 4
    with pytest.raises(FileExistsError, match=r"out\.partial\.mp4 and .*out\.partial\.jsonl would be over"):
        VideoOutputs.of(tmp_path / "out.mp4")


def test_damage_is_told_and_nothing_is_left_of_nothing(detector, tmp_path):
    noise = list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8))
    source = make_video(tmp_path / "in.mp4", noise, options={"g": "1"})
    damage(source, 3)
    outputs = VideoOutputs.of(tmp_path / "out.mp4")
    done = write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert (done.frames, done.lost, done.damaged) == (5, 1, 0)
    (problem,) = done.problems
    assert problem.startswith("at 0.120 s: cannot be decoded")
    assert [line["time"] for line in lines_of(outputs.lines)] == [0, 0.04, 0.08, 0.16, 0.2]
    for number in range(6):
        damage(source, number)
    outputs = VideoOutputs.of(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match=r"in\.mp4: none of its frames can be decoded; at 0\.000 s: cannot"):
        write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert outputs.existing() == outputs.unfinished.existing() == []


@pytest.mark.parametrize("name", ["out.avi", "out", "none/out.mp4"])
def test_outputs_that_cannot_be(tmp_path, name):
    with pytest.raises(ValueError, match=r"written as \.mp4, \.mov, \.mkv|there is no folder"):
        VideoOutputs.of(tmp_path / name)


def test_existing_files_are_never_replaced(tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.jsonl would be overwritten"):
        VideoOutputs.of(tmp_path / "out.mp4")


@pytest.mark.parametrize("name", ["out.partial.jsonl", "out.partial.mp4", "out.jsonl", "out.mp4"])
def test_files_of_a_run_that_began_meanwhile_are_kept(detector, source, tmp_path, name):
    """Both had found no files; the other one is still writing, or has just ended."""
    outputs = VideoOutputs.of(tmp_path / "out.mp4")
    (tmp_path / name).write_text("of the other run")
    for path in (source, tmp_path / "missing.mp4"):
        with pytest.raises(FileExistsError, match=f"{name} would be overwritten"):
            write_video(detector, path, outputs, score_threshold=0.5, tracks=False)
    assert (tmp_path / name).read_text() == "of the other run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", name]


def test_two_runs_that_begin_at_once(detector, source, tmp_path, monkeypatch):
    outputs = VideoOutputs.of(tmp_path / "out.mp4")
    monkeypatch.setattr(VideoOutputs, "check_absent", lambda self: outputs.unfinished.lines.touch())
    with pytest.raises(FileExistsError, match=r"out\.partial\.jsonl"):
        write_video(detector, source, outputs, score_threshold=0.5, tracks=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.partial.jsonl"]


def test_a_model_of_other_images(detector, source):
    detector.pixels = PixelFormat(channels=4)
    with pytest.raises(ValueError, match=r"in\.mkv: videos are RGB, but the model takes images \[H W 4\]"):
        next(predict_video(detector, source))


def test_tracks_without_the_library(detector, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match=r"tracks need the library trackers \(.+\): pip install"):
        next(predict_video(detector, source, tracks=True))


def test_colours_stand_for_categories_or_tracks(detector, source):
    """The mask over the white frame has the colour; the second object of a track keeps it."""
    found = list(predict_video(detector, source))[5]

    def color(tracks):
        picture = FrameResult(found.frame, found.result, tracks).draw()
        return picture[100:-100, 100:-100].reshape(-1, 3).mean(axis=0)

    def mixed(color):
        return 0.4 * np.array(color) + 0.6 * 255

    np.testing.assert_allclose(color(None), mixed(COLORS[0]), atol=3)
    np.testing.assert_allclose(color((2,)), mixed(COLORS[2]), atol=3)
    np.testing.assert_allclose(color((2 + len(COLORS),)), mixed(COLORS[2]), atol=3)
    np.testing.assert_allclose(color((None,)), mixed((200, 200, 200)), atol=3)
    assert FrameResult(found.frame, found.result, (2,)).to_json()["objects"][0]["track"] == 2
