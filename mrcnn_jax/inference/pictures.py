"""Predicts on many images, writing their pictures as they are ready and collecting COCO results."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from mrcnn_jax.images import read_image
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.inference.files import PICTURE_MARK
from mrcnn_jax.inference.results import Result

_THREADS = 4
_MAX_PENDING = 8  # pictures waiting to be written; each may hold the masks of a large photo


@dataclass(frozen=True)
class Written:
    """The results of all images, and the errors."""

    entries: list[dict[str, Any]]  # COCO results list
    drawn: int  # number of objects drawn
    errors: list[ValueError]  # one per image that could not be read


def write_pictures(
    detector: Detector,
    images: Sequence[Path],
    pictures: Sequence[Path],
    *,
    image_ids: Sequence[int],
    score_threshold: float,
) -> Written:
    """Predicts on ``images`` and writes each one's picture to its path in ``pictures``, with a progress bar.

    Objects scoring under ``score_threshold`` are left out of the pictures but kept in the entries. An image
    that cannot be read adds to ``errors``. Missing folders are created; raises ``OSError`` if a picture
    cannot be written.
    """
    entries: list[dict[str, Any]] = []
    errors: list[ValueError] = []
    drawn = 0
    writing: deque[Future[None]] = deque()
    outcomes = zip(images, pictures, image_ids, detector.attempt(images), strict=True)
    with ThreadPoolExecutor(_THREADS) as writers:
        for image, picture, image_id, outcome in tqdm(
            outcomes, total=len(images), unit="image", disable=None
        ):
            if isinstance(outcome, ValueError):
                errors.append(outcome)
                continue
            entries += outcome.to_coco(image_id)
            shown = outcome.above(score_threshold)
            drawn += len(shown)
            writing.append(writers.submit(_write_picture, image, shown, picture))
            if len(writing) > _MAX_PENDING:
                writing.popleft().result()
        for writing_one in writing:
            writing_one.result()
    return Written(entries, drawn, errors)


def _write_picture(image: Path, result: Result, picture: Path) -> None:
    # Reads the file again: keeping the pixels of all pending images would cost too much memory.
    drawn = Image.fromarray(draw(read_image(image), result))
    picture.parent.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    for key, text in PICTURE_MARK.items():
        mark.add_text(key, text)
    drawn.save(picture, pnginfo=mark)
