import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.data.validation import measured_images, validation_batches

CONFIG = DataConfig(
    train_short_sides=(24, 32),
    test_short_side=10,
    long_side=64,
    canvases=((16, 64), (64, 16)),
    max_objects=3,
    mask_grid=4,
    scale_jitter=(0.1, 2.0),
    colour_jitter=True,
)


@pytest.fixture
def source(folder):
    """Two wide images with an object around a tall one, and one without objects."""
    pixels = [np.random.default_rng(n).integers(1, 256, shape) for n, shape in enumerate([(10, 20, 3)] * 4)]
    pixels[1] = pixels[1].transpose(1, 0, 2)
    for number, image in enumerate(pixels):
        name = folder.add_image(image.astype(np.uint8))
        if number != 2:
            folder.add_object(name)
    return FolderSource(read_coco(**folder.write()), mask_grid=4)


def test_each_image_once_as_it_is_and_rows_in_which_nothing_is_sampled(source):
    indices = measured_images(source, CONFIG, keypoints=True)
    assert indices.tolist() == [0, 1, 3]
    batches = list(validation_batches(source, CONFIG, indices, batch_size=4, masks=True, keypoints=True))
    assert [rows.tolist() for _, rows in batches] == [[0, 3, -1, -1], [1, -1, -1, -1]]
    wide, tall = (batch for batch, _ in batches)
    assert wide.images.shape == (4, 16, 64, 3) and tall.images.shape == (4, 64, 16, 3)
    for batch, row, index in ((wide, 0, 0), (wide, 1, 3), (tall, 0, 1)):
        height, width = batch.image_sizes[row]
        np.testing.assert_array_equal(batch.images[row, :height, :width], source.read(index).pixels)
        assert batch.gt.boxes[row, 0].tolist() == [2, 1, 10, 5]  # not flipped
        assert batch.gt.masks[row].any() and batch.gt.keypoints[row].any()
    for batch, row in ((wide, 2), (tall, 3)):
        assert (
            not batch.images[row].any() and batch.image_sizes[row].tolist() == batch.image_sizes[0].tolist()
        )
        assert batch.gt.valid[row].tolist() == batch.gt.crowd[row].tolist() == [True, False, False]
        assert batch.gt.boxes[row, 0].tolist() == [-1e6, -1e6, 1e6, 1e6]


def test_nothing_to_measure(source):
    source.learnable = np.zeros(4, bool)
    with pytest.raises(ValueError, match=r"none of its 4 images would be trained on.* train.validation_loss"):
        measured_images(source, CONFIG, keypoints=True)
    kept = measured_images(source, dataclasses.replace(CONFIG, keep_empty=True), keypoints=True)
    assert kept.tolist() == [0, 1, 2, 3]
