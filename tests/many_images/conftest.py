"""A folder of images, and what finds as many objects in one as its brightness says, without a model."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.many_images.job import Job, begin_job
from mrcnn_jax.pixels import RGB
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories(ids=(3, 7), names=("ball", "figure"), keypoint_labels=(2,), keypoint_names=("a", "b"))
SUFFIXES = (".png", ".jpg")


def result_of(pixels: np.ndarray) -> Result:
    """One object for each 10 of brightness: balls and figures in turn."""
    height, width = pixels.shape[:2]
    count = int(pixels[0, 0, 0]) // 10
    mask = np.ones((2, 3), bool)
    return Result(
        boxes=np.array([[1, 2, 4, 4 + i / 8] for i in range(count)], np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        labels=np.arange(count) % 2 + 1,
        image_size=(height, width),
        categories=CATEGORIES,
        crops=tuple(PastedMask(mask=mask, top=2, left=1) for _ in range(count)),
        keypoints=np.full((count, 2, 3), 1.5, np.float32),
    )


class BrightnessFinder:
    """Finds ``result_of`` images; remembers how many it was given."""

    pixels = RGB

    def __init__(self) -> None:
        self.seen = 0

    def attempt(self, sources: Iterable[Any], *, inspect: Any = None) -> Iterator[Result | ValueError]:
        for index, source in enumerate(sources):
            self.seen += 1
            try:
                image = source()
            except ValueError as error:
                yield error
                continue
            inspect(index, image)
            yield result_of(image)


def write_image(path: Path, brightness: int, size: tuple[int, int] = (8, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), brightness, np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images, of which the fourth is damaged and the last is nearly black."""
    for number in range(9):
        write_image(tmp_path / "photos" / f"{number}.png", 20 + 10 * number)
    (tmp_path / "photos" / "3.png").write_bytes(b"not an image")
    write_image(tmp_path / "photos" / "9.png", 10)
    return tmp_path / "photos"


def begin(folder: Path, images: Path, entries: Any = None, **changes: Any) -> Job:
    """A job of the images in a folder, in shards of four."""
    names = sorted(path.name for path in images.iterdir()) if entries is None else entries
    options: dict[str, Any] = {
        "format": "parquet",
        "base": images,
        "column": None,
        "shard_size": 4,
        "batch_size": 2,
        "actors": 1,
        "made_with": {"--step": 7},
    }
    return begin_job(folder, names, **options | changes)
