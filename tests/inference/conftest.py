"""A fake model and fixtures for the inference tests."""

import numpy as np
import pytest

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections


@pytest.fixture
def categories() -> Categories:
    return Categories(
        ids=(3, 7),
        names=("ball", "figure"),
        keypoint_labels=(2,),
        keypoint_names=("head", "left_foot", "right_foot"),
        skeleton=((0, 1), (0, 2)),
        flip_pairs=((1, 2), (2, 1)),
        sigmas=(0.05, 0.1, 0.1),
    )


@pytest.fixture
def config() -> Config:
    """A config that resizes images to a short side of 32 pixels, with two canvases."""
    return Config(
        model=ModelConfig(keypoint=True),
        data=DataConfig(test_short_side=32, long_side=64, canvases=((32, 64), (64, 32))),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class FakeModel:
    """Finds one box of label 1 that covers the image; its score is the top left pixel's red / 255."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray, image_sizes: np.ndarray) -> Detections:
        assert images.dtype == np.uint8 and image_sizes.dtype == np.int32
        assert (image_sizes <= images.shape[1:3]).all()
        self.batches.append(images.shape)
        count = len(images)
        boxes = np.full((count, 2, 4), np.nan, np.float32)
        boxes[:, 0, :2] = 0
        boxes[:, 0, 2:] = image_sizes[:, ::-1]
        return Detections(
            boxes=boxes,
            scores=np.repeat(images[:, 0, 0, :1] / np.float32(255), 2, axis=1),
            labels=np.ones((count, 2), np.int32),
            valid=np.tile([True, False], (count, 1)),
            masks=np.ones((count, 2, 4, 4), np.float32),
            keypoints=np.zeros((count, 2, 3, 3), np.float32),
        )


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()
