"""Numbers of tracks, by the library ``trackers`` (requirements-slow.txt)."""

import numpy as np
import pytest

pytest.importorskip("trackers", reason="needs the library trackers (the extra [tracks])")

from mrcnn_jax.inference.results import Result
from mrcnn_jax.inference.tracks import Tracker


@pytest.fixture
def at(categories):
    """A result of squares of 20 pixels: the label, the left edge and the score of each."""

    def result(*objects):
        labels, lefts, scores = map(np.array, zip(*objects, strict=True)) if objects else ([], [], [])
        lefts = np.asarray(lefts, np.float32)
        boxes = np.stack([lefts, 0 * lefts + 50, lefts + 20, 0 * lefts + 70], axis=1)
        return Result(
            boxes=boxes,
            scores=np.asarray(scores, np.float32),
            labels=np.asarray(labels, np.int32),
            image_size=(120, 200),
            categories=categories,
        )

    return result


def test_tracks_by_hand(at):
    """Two balls move apart; their order changes with their scores. The first frame begins the tracks."""
    tracker = Tracker(frame_rate=25.0)
    assert tracker.update(at((1, 100, 0.9), (1, 60, 0.8)), 0.0) == [None, None]
    assert tracker.update(at((1, 103, 0.9), (1, 57, 0.8)), 0.04) == [0, 1]
    assert tracker.update(at((1, 54, 0.9), (1, 106, 0.8)), 0.08) == [1, 0]
    assert tracker.update(at(), 0.12) == []
    assert tracker.update(at((1, 112, 0.9), (1, 48, 0.8)), 0.16) == [0, 1]


def test_categories_are_apart_and_weak_objects_only_continue(at):
    """A figure that passes over a ball has its own track; an object under the threshold begins none."""
    tracker = Tracker(frame_rate=25.0, threshold=0.5)
    for step in range(12):
        found = tracker.update(at((1, 100, 0.9), (2, 70 + 5 * step, 0.8), (1, 10, 0.3)), step / 25)
        assert found == ([None, None, None] if step == 0 else [0, 1, None])
    assert tracker.update(at((1, 100, 0.2)), 12 / 25) == [0]


def test_a_lost_track_is_found_within_a_second(at):
    tracker = Tracker(frame_rate=10.0)
    for step in range(3):
        tracker.update(at((1, 100, 0.9)), step / 10)
    for step in range(3, 11):
        assert tracker.update(at(), step / 10) == []
    assert tracker.update(at((1, 100, 0.9)), 1.1) == [0]
    for step in range(12, 24):
        tracker.update(at(), step / 10)
    assert [tracker.update(at((1, 100, 0.9)), step / 10) for step in (24, 25)] == [[None], [1]]


def test_objects_move_on_where_frames_are_missing(at):
    """A ball that moves by half its size in a frame is found again after six frames."""
    tracker = Tracker(frame_rate=25.0)
    for step in range(5):
        tracker.update(at((1, 10 * step, 0.9)), step / 25)
    assert tracker.update(at((1, 100, 0.9)), 10 / 25) == [0]
