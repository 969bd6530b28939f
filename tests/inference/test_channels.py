"""Detecting in images with four channels, given as arrays, files and Pillow's images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.files import find_images
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections

IMAGE = np.random.default_rng(0).integers(0, 5000, (8, 16, 4)).astype(np.uint16)


class Seen:
    """Finds nothing, and keeps the batches that it is given."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Detections:
        self.images.append(images)
        shape = len(images), 1
        return Detections(
            boxes=np.zeros((*shape, 4), np.float32),
            scores=np.zeros(shape, np.float32),
            labels=np.ones(shape, np.int32),
            valid=np.zeros(shape, bool),
        )


@pytest.fixture
def rgbd(config: Config) -> Config:
    model = dataclasses.replace(
        config.model, mask=False, pixel_mean=(0.0,) * 4, pixel_std=(1.0,) * 4, pixel_type="float32"
    )
    data = dataclasses.replace(config.data, test_short_side=8, long_side=16, canvases=((32, 32),))
    return dataclasses.replace(config, model=model, data=data)


def test_arrays_and_files_reach_the_model_with_their_values(
    rgbd: Config, categories: Categories, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", IMAGE)
    seen = Seen()
    detector = Detector(seen, rgbd, categories, batch_size=2)
    eight_bits = IMAGE.astype(np.uint8)
    results = detector([IMAGE, tmp_path / "a.npy", IMAGE.astype(np.float32), Image.fromarray(eight_bits)])
    assert [result.image_size for result in results] == [(8, 16)] * 4
    first, second = seen.images
    assert first.dtype == np.float32 and first.shape == (2, 32, 32, 4)
    for image in (*first, second[0]):
        np.testing.assert_array_equal(image[:8, :16], IMAGE)
        assert not image[8:].any()
    np.testing.assert_array_equal(second[1][:8, :16], eight_bits)


def test_results_draw_the_channels_that_are_shown(
    rgbd: Config, categories: Categories, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", IMAGE)
    rgbd.data.shown_channels = (3,)
    detector = Detector(Seen(), rgbd, categories)
    pictures = detector(tmp_path / "a.npy").plot(), detector(IMAGE).plot(IMAGE)
    for picture in pictures:
        pixels = np.asarray(picture)
        assert (pixels[..., :1] == pixels).all() and pixels.max() == 255 and pixels.min() == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (IMAGE[..., :3], r"image 0 is uint16 \[8, 16, 3\]; .* or a float32 NumPy array \[H W 4\]"),
        (
            Image.new("RGB", (4, 4)),
            r"image 0, .*: cannot be read: it has 3 channels .* takes \[H W 4\] float32",
        ),
        (np.full((2, 2, 4), np.inf), "must be finite"),
    ],
)
def test_images_with_other_channels_are_errors(
    rgbd: Config, categories: Categories, source: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(Seen(), rgbd, categories)(source)


def test_arrays_in_a_folder_are_images_if_they_are_wanted(tmp_path: Path) -> None:
    for name in ("a.npy", "b.tif"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])[0]] == ["b.tif"]
    assert [path.name for path in find_images([tmp_path], (".tif", ".npy"))[0]] == ["a.npy", "b.tif"]
