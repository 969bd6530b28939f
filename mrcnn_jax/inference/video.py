"""Finds objects in the frames of a video.

``predict_video`` yields what is in each frame; ``write_video`` also draws it into another video.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import COLORS, Color, draw
from mrcnn_jax.inference.results import Result
from mrcnn_jax.inference.tracks import Tracker
from mrcnn_jax.video_files import Video, VideoFrame, open_video

_T = TypeVar("_T")

_NO_TRACK: Color = (200, 200, 200)  # of objects without a track, beside others that have one


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The objects in one frame of a video."""

    frame: VideoFrame
    result: Result
    tracks: tuple[int | None, ...] | None = None  # of each object, from 0; None if none were asked for

    def draw(self, score_threshold: float = 0.5) -> np.ndarray:
        """The frame ``[H W 3]`` with its objects of at least this score, as ``draw.draw`` does.

        A colour stands for a track, or for a category if there are no tracks, in all frames.
        """
        keep = np.flatnonzero(self.result.scores >= score_threshold)
        shown = self.result[keep]
        if self.tracks is None:
            colors = [COLORS[(label - 1) % len(COLORS)] for label in shown.labels.tolist()]
            return draw(self.frame.image, shown, colors=colors)
        tracks = [self.tracks[i] for i in keep]
        colors = [_NO_TRACK if track is None else COLORS[track % len(COLORS)] for track in tracks]
        texts = [
            f"{name} {score:.2f}" if track is None else f"{track} {name} {score:.2f}"
            for name, score, track in zip(shown.names, shown.scores.tolist(), tracks, strict=True)
        ]
        return draw(self.frame.image, shown, texts=texts, colors=colors)

    def to_json(self) -> dict[str, Any]:
        """The frame as JSON: "frame", "time" in seconds, "objects", and "damaged" if it is.

        An object is an entry of a COCO results list whose ``image_id`` is the frame, with its "track" if
        tracks were asked for (null for an object without one).
        """
        objects = self.result.to_coco(self.frame.index)
        if self.tracks is not None:
            for entry, track in zip(objects, self.tracks, strict=True):
                entry["track"] = track
        content = {"frame": self.frame.index, "time": round(self.frame.time, 6), "objects": objects}
        return content | ({"damaged": True} if self.frame.is_damaged else {})


def predict_video(
    detector: Detector, video: str | Path | Video, *, tracks: bool = False, track_threshold: float = 0.5
) -> Generator[FrameResult, None, None]:
    """Yields the objects of each frame of a video, in order, as they are ready.

    Frames are decoded in a thread of their own. Some batches of frames are in memory at a time, however long
    the video is. What cannot be decoded is left out (``Video.problems``).

    Args:
        detector: as ``mrcnn_jax.load`` returns it, with the number of frames in a batch.
        video: a file, or a video that ``video_files.open_video`` opened.
        tracks: follow objects from frame to frame (``tracks.Tracker``).
        track_threshold: the score from which objects are followed; weaker ones continue a track only.

    Raises ValueError if the model does not take RGB images, if ``tracks`` need a library that is missing,
    and, as ``open_video`` does, for a file that cannot be read.
    """
    if not isinstance(video, Video):
        with open_video(Path(video)) as opened:
            yield from predict_video(detector, opened, tracks=tracks, track_threshold=track_threshold)
        return
    if not detector.pixels.is_rgb:
        raise ValueError(f"{video.path}: videos are RGB, but the model takes images {detector.pixels}")
    tracker = None
    if tracks:
        tracker = Tracker(frame_rate=float(video.frame_rate), threshold=track_threshold)
    frames: deque[VideoFrame] = deque()  # whose results have not come yet

    def images() -> Generator[np.ndarray, None, None]:
        for frame in _read_ahead(video.frames(), detector.batch_size):
            frames.append(frame)
            yield frame.image

    waiting = images()
    try:
        for result in detector.stream(waiting):
            frame = frames.popleft()
            found = None if tracker is None else tuple(tracker.update(result, frame.time))
            yield FrameResult(frame, result, found)
    finally:
        waiting.close()  # before the file is


def _read_ahead(items: Iterator[_T], count: int) -> Iterator[_T]:
    """Yields ``items``, of which a thread computes ``count`` before they are asked for."""
    with ThreadPoolExecutor(1) as reader:
        reading: deque[Future[_T | None]] = deque()
        for _ in range(count):
            reading.append(reader.submit(next, items, None))
        while (item := reading.popleft().result()) is not None:
            reading.append(reader.submit(next, items, None))
            yield item
