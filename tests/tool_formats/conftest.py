from collections.abc import Callable
from pathlib import Path

import pytest

from mrcnn_jax.tool_formats.export import Options, export
from mrcnn_jax.tool_formats.found import Found
from tests.tool_formats.examples import write_example, write_keypoint_example

Write = Callable[..., Path]
WriteKeypoints = Callable[..., tuple[Path, Found]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the example in a format, and returns the folder; the images are in ``photos`` beside it."""
    results, images = write_example(tmp_path)

    def written(format: str, *, score_threshold: float = 0.5, **options: object) -> Path:
        folder = tmp_path / format
        export(Found(results, images, score_threshold=score_threshold), folder, format, Options(**options))
        return folder

    return written


@pytest.fixture
def write_keypoints(tmp_path: Path) -> WriteKeypoints:
    """Writes the example with keypoints; returns the folder, and what it was written from."""

    def written(format: str, *, named: bool = True, keypoints: bool = True) -> tuple[Path, Found]:
        results, images, annotations = write_keypoint_example(tmp_path)
        found = Found(results, images, annotations=annotations if named else None, keypoints=keypoints)
        export(found, tmp_path / format, format)
        return tmp_path / format, found

    return written
