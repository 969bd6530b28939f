"""Predicts on many images, writing each one's picture and results as they are ready."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mrcnn_jax.image_windows import open_windows
from mrcnn_jax.images import is_nearly_black
from mrcnn_jax.inference.coco_files import to_annotations
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.inference.files import PICTURE_MARK
from mrcnn_jax.inference.geojson import write_geojson
from mrcnn_jax.inference.partial_results import Found, PartialResults
from mrcnn_jax.inference.results import Result
from mrcnn_jax.inference.tiles import TiledDetector
from mrcnn_jax.json_files import replacing
from mrcnn_jax.runtime.progress import progress_bar

_THREADS = 4
_MAX_PENDING = 8  # results waiting to be written; each may hold the masks of a large photo


class Problems(NamedTuple):
    """The images of ``write_results`` that are not in order."""

    unreadable: list[ValueError]
    nearly_black: list[Path]


class _Files(NamedTuple):
    """An image, and what is written of it."""

    image: Path
    picture: Path | None
    geojson: Path | None


def can_be_drawn(size: Sequence[int]) -> bool:
    """Whether an image has no more pixels than Pillow reads; one that is found in by tiles may have more."""
    return math.prod(size) <= 2 * (Image.MAX_IMAGE_PIXELS or math.inf)


def write_results(
    detector: Detector | TiledDetector,
    images: Sequence[Path],
    pictures: Sequence[Path] | None,
    partial: PartialResults,
    *,
    score_threshold: float,
    annotations: bool,
    geojson: Sequence[Path] | None = None,
) -> Problems:
    """Predicts on ``images``; returns those that cannot be read, and those that are nearly black.

    Results are appended to ``partial``, and pictures written to the paths in ``pictures``; images that
    ``partial`` has are skipped. Objects scoring under ``score_threshold`` are left out of the pictures, the
    files in ``geojson`` and the ``annotations`` of a COCO dataset, if these are wanted. Missing folders are
    created. Shows a progress bar. Only a few images' results are in memory at a time. Raises ``OSError`` if a
    file cannot be written.
    """
    nothing: list[None] = [None] * len(images)
    every = map(_Files, images, pictures or nothing, geojson or nothing)
    todo = [files for files in every if not partial.is_done(files.image)]
    errors: list[ValueError] = []
    black: set[int] = set()  # indices in todo
    writing: deque[tuple[Path, Future[Found]]] = deque()

    def append_oldest() -> None:
        image, found = writing.popleft()
        partial.append(image, found.result())

    def inspect(index: int, pixels: np.ndarray) -> None:
        if is_nearly_black(pixels):
            black.add(index)

    outcomes = progress_bar(
        detector.attempt((files.image for files in todo), inspect=inspect),
        total=len(images),
        initial=len(images) - len(todo),
    )
    with ThreadPoolExecutor(_THREADS) as writers:
        try:
            for files, outcome in zip(todo, outcomes, strict=True):
                if isinstance(outcome, ValueError):
                    errors.append(outcome)
                    continue
                shown = outcome.above(score_threshold)
                found = writers.submit(_write, detector.read, files, outcome, shown, annotations)
                writing.append((files.image, found))
                if len(writing) > _MAX_PENDING:
                    append_oldest()
        finally:  # also what is ready when the user interrupts the program
            while writing:
                append_oldest()
    return Problems(errors, [todo[index].image for index in sorted(black)])


def _write(
    read: Callable[[Path], np.ndarray],
    files: _Files,
    result: Result,
    shown: Result,
    annotations: bool,
) -> Found:
    """Writes the picture and the GeoJSON, and returns what is written of the image besides."""
    if files.picture is not None and can_be_drawn(result.image_size):
        # Reads the file again: keeping the pixels of all pending images would cost too much memory.
        _write_picture(read(files.image), shown, files.picture)
    if files.geojson is not None:
        with open_windows(files.image, result.pixels) as windows:
            write_geojson(files.geojson, shown, windows.georeference)
    found = Found(size=list(result.image_size), drawn=len(shown), objects=result.to_coco(0))
    if annotations:
        found["annotations"] = to_annotations(shown)
    return found


def _write_picture(pixels: np.ndarray, result: Result, picture: Path) -> None:
    drawn = Image.fromarray(draw(result.pixels.show(pixels), result))
    picture.parent.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    for key, text in PICTURE_MARK.items():
        mark.add_text(key, text)
    # If the process is killed here, the run that goes on must not find half a picture, which lacks the mark.
    with replacing(picture) as unfinished:
        drawn.save(unfinished, format="PNG", pnginfo=mark)
