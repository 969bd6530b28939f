"""Writes what is found in a video: the video with the objects drawn, and its detections as JSON lines."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.video import FrameResult, predict_video
from mrcnn_jax.json_files import dumps
from mrcnn_jax.runtime.progress import progress_bar
from mrcnn_jax.video_files import WRITTEN, VideoFrame, VideoWriter, open_video

LINES = ".jsonl"
_THREADS = 4
_MAX_PENDING = 8  # frames that are drawn, or wait for it


class VideoOutputs(NamedTuple):
    """The files that are written of a video; until they are complete, they have other names."""

    video: Path | None  # with the objects drawn; None if there is none
    lines: Path  # a line of JSON for each frame (``FrameResult.to_json``)

    @staticmethod
    def of(output: Path) -> "VideoOutputs":
        """``out.mp4`` and ``out.jsonl`` for ``out.mp4``; ``out.jsonl`` alone for ``out.jsonl``.

        Raises ValueError, naming the file, for another suffix and for a folder that does not exist, and
        FileExistsError if there are such files already, complete or of an interrupted run.
        """
        suffix = output.suffix.lower()
        if suffix not in (*WRITTEN, LINES):
            raise ValueError(
                f"{output}: a video is written as {', '.join(WRITTEN)}, and its detections alone as {LINES}; "
                f"choose a file of such a name, not {suffix or 'a name without suffix'}"
            )
        if not output.parent.is_dir():
            raise ValueError(f"{output}: there is no folder {output.parent}")
        outputs = VideoOutputs(None if suffix == LINES else output, output.with_suffix(LINES))
        outputs.check_absent()
        return outputs

    def check_absent(self) -> None:
        """Raises FileExistsError if there are such files already, complete or unfinished."""
        if taken := [str(path) for path in (*self.existing(), *self.unfinished.existing())]:
            raise FileExistsError(
                f"{' and '.join(taken)} would be overwritten: remove what is not needed, or choose another "
                "output"
            )

    @property
    def unfinished(self) -> "VideoOutputs":
        """The same files with ``.partial`` before their suffix."""
        video, lines = self
        return VideoOutputs(video and _partial(video), _partial(lines))

    def existing(self) -> list[Path]:
        """Those of the files that exist."""
        return [path for path in self if path is not None and path.exists()]


@dataclass
class VideoSummary:
    """What was written of a video, and what could not be."""

    frames: int = 0
    objects: int = 0
    drawn: int = 0  # of these, those of at least the score threshold
    lost: int = 0  # see ``video_files.Video``
    damaged: int = 0
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # audio that was not copied


class _Written(NamedTuple):
    """A frame as it is written."""

    frame: VideoFrame
    line: str
    objects: int
    drawn: int
    picture: np.ndarray | None


def write_video(
    detector: Detector, source: Path, outputs: VideoOutputs, *, score_threshold: float, tracks: bool
) -> VideoSummary:
    """Finds objects in a video, and writes ``outputs`` frame by frame.

    Objects scoring under ``score_threshold`` are not drawn. Shows a progress bar. Memory does not grow with
    the length of the video. If an exception or Ctrl-C ends it, the frames so far are kept in
    ``outputs.unfinished``, which are complete files; without any frame nothing is left behind.

    Raises ValueError, naming the file and the reason, for a source that cannot be read or has no frame that
    can be decoded, and as ``predict_video`` does; ValueError or OSError if a file cannot be written;
    FileExistsError if another run has begun to write ``outputs``, or has written them.
    """
    summary = VideoSummary()
    unfinished = outputs.unfinished
    outputs.check_absent()  # again: loading the model took its time
    pending: deque[Future[_Written]] = deque()

    def prepare(found: FrameResult) -> _Written:
        return _Written(
            frame=found.frame,
            line=dumps(found.to_json()),
            objects=len(found.result),
            drawn=int((found.result.scores >= score_threshold).sum()),
            picture=None if outputs.video is None else found.draw(score_threshold),
        )

    lines = unfinished.lines.open("x", encoding="utf-8")  # from here on the names are this run's
    try:
        with lines, ExitStack() as files:
            video = files.enter_context(open_video(source))
            found = predict_video(detector, video, tracks=tracks, track_threshold=score_threshold)
            results = files.enter_context(closing(found))
            writer = None
            if unfinished.video is not None:
                writer = files.enter_context(VideoWriter(unfinished.video, video))
                summary.left_out = writer.left_out
            drawers = files.enter_context(ThreadPoolExecutor(_THREADS))

            def write_oldest() -> None:
                written = pending.popleft().result()
                if writer is not None and written.picture is not None:
                    writer.write(written.picture, written.frame)
                lines.write(f"{written.line}\n")
                lines.flush()
                summary.frames += 1
                summary.objects += written.objects
                summary.drawn += written.drawn

            try:
                for result in progress_bar(results, total=video.expected_frames, unit="frame"):
                    pending.append(drawers.submit(prepare, result))
                    if len(pending) > _MAX_PENDING:
                        write_oldest()
            finally:  # also what is ready when the user interrupts the program
                while pending:
                    write_oldest()
            summary.lost, summary.damaged, summary.problems = video.lost, video.damaged, video.problems
        if not summary.frames:
            raise ValueError("; ".join([f"{source}: none of its frames can be decoded", *summary.problems]))
        if unfinished.video is not None and outputs.video is not None:
            unfinished.video.rename(outputs.video)
        unfinished.lines.rename(outputs.lines)  # last, as it was the first
    finally:
        if not summary.frames:
            for path in unfinished.existing():
                path.unlink()
    return summary


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partial{path.suffix}")
