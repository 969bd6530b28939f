from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.pictures import write_pictures
from mrcnn_jax.types import Categories


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Files whose red is 255 (the fake model's score is 1) and 51 (0.2), with a broken file between them."""
    paths = [tmp_path / name for name in ("sure.png", "broken.png", "unsure.png")]
    Image.fromarray(np.full((16, 20, 3), 255, np.uint8)).save(paths[0])
    paths[1].write_bytes(b"no image")
    Image.fromarray(np.full((16, 20, 3), 51, np.uint8)).save(paths[2])
    return paths


def test_pictures_and_entries(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    pictures = [tmp_path / "made" / f"{image.stem}-found.png" for image in images]
    written = write_pictures(
        Detector(model, config, categories), images, pictures, image_ids=[4, 5, 6], score_threshold=0.5
    )
    assert [(entry["image_id"], entry["file_name"]) for entry in written.entries] == [
        (4, "sure.png"),
        (6, "unsure.png"),
    ]
    assert written.drawn == 1
    assert len(written.errors) == 1 and "broken.png" in str(written.errors[0])
    assert [picture.exists() for picture in pictures] == [True, False, True]
    assert np.unique(np.array(Image.open(pictures[0])).reshape(-1, 3), axis=0).shape[0] > 1
    np.testing.assert_array_equal(np.array(Image.open(pictures[2])), 51)  # its object's score is 0.2


def test_picture_that_cannot_be_written_is_an_error(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_pictures(
            Detector(model, config, categories),
            images[:1],
            [tmp_path / "file" / "a.png"],
            image_ids=[1],
            score_threshold=0.5,
        )
