"""Configs, a weights file and a file of categories to make runs from."""

import dataclasses
from pathlib import Path

import pytest

from mrcnn_jax.config import Config, presets
from mrcnn_jax.weights.files import write_arrays
from tests.weights.examples import arrays_of, categories_file, changed


@pytest.fixture
def masks_only(tiny_config: Config) -> Config:
    return changed(tiny_config, keypoint=False)


@pytest.fixture
def keypoints_only(tiny_config: Config) -> Config:
    return changed(tiny_config, mask=False)


@pytest.fixture
def agnostic(masks_only: Config) -> Config:
    return changed(masks_only, box_agnostic=True, mask_agnostic=True)


@pytest.fixture
def cascade(masks_only: Config) -> Config:
    config = changed(masks_only, box_agnostic=True, box_cascade=presets.CASCADE)
    train = dataclasses.replace(config.train, cascade_positive_ious=(0.6, 0.7))
    return dataclasses.replace(config, train=train)


@pytest.fixture
def file(tmp_path: Path, tiny_config: Config) -> Path:
    """Weights with torchvision's names, for 3 classes and 5 keypoints."""
    path = tmp_path / "weights.npz"
    write_arrays(path, arrays_of("torchvision", tiny_config, classes=3, keypoints=5))
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    return categories_file(tmp_path / "categories.json", classes=3, keypoints=5)
