from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.partial_results import PartialResults
from mrcnn_jax.inference.pictures import write_results
from mrcnn_jax.runs.categories import Categories


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
    detector = Detector(model, config, categories)
    with PartialResults(tmp_path / "made" / "partial", {}, images, pictures) as partial:
        errors, nearly_black = write_results(
            detector, images, pictures, partial, score_threshold=0.5, annotations=True
        )
        found = list(partial.read(images))
    assert [(index, results["objects"][0]["file_name"]) for index, results in found] == [
        (0, "sure.png"),
        (2, "unsure.png"),
    ]
    assert [(results["drawn"], len(results["annotations"])) for _, results in found] == [(1, 1), (0, 0)]
    assert found[0][1]["size"] == [16, 20]
    assert len(errors) == 1 and "broken.png" in str(errors[0])
    assert nearly_black == []
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "partial",
        "sure-found.png",
        "unsure-found.png",
    ]
    assert np.unique(np.array(Image.open(pictures[0])).reshape(-1, 3), axis=0).shape[0] > 1
    np.testing.assert_array_equal(np.array(Image.open(pictures[2])), 51)  # its object's score is 0.2


def test_nearly_black_images_are_returned(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    """In the order given; those that an interrupted run has done are not read again."""
    for number, brightest in enumerate((15, 16, 0)):
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((16, 20), brightest, np.uint8)).save(images[-1])
    detector = Detector(model, config, categories, batch_size=2)
    for wanted in ([images[3], images[5]], []):
        with PartialResults(tmp_path / "partial", {}, images, None) as partial:
            problems = write_results(detector, images, None, partial, score_threshold=0.5, annotations=False)
        assert problems.nearly_black == wanted
        assert len(problems.unreadable) == 1


def test_an_interrupted_run_goes_on_with_the_images_that_are_missing(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    images[1].write_bytes(images[0].read_bytes())

    class Interrupted(Detector):
        def attempt(self, sources: Any, **options: Any) -> Any:
            yield from super().attempt(list(sources)[:2], **options)
            raise KeyboardInterrupt

    def run(kind: type[Detector]) -> PartialResults:
        detector = kind(model, config, categories)
        with PartialResults(tmp_path / "partial", {}, images, None) as partial:
            errors, _ = write_results(detector, images, None, partial, score_threshold=0.5, annotations=False)
        assert not errors
        return partial

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted)
    assert len(model.batches) == 2
    found = [results for _, results in run(Detector).read(images)]
    assert len(model.batches) == 3
    assert [Path(results["file"]) for results in found] == images
    assert "annotations" not in found[0]


def test_a_name_as_long_as_file_systems_take(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    image = images[0].rename(tmp_path / ("a" * 251 + ".png"))
    (tmp_path / "made").mkdir()
    pictures = [tmp_path / "made" / image.name]
    detector = Detector(model, config, categories)
    with PartialResults(tmp_path / "partial", {}, [image], pictures) as partial:
        write_results(detector, [image], pictures, partial, score_threshold=0.5, annotations=False)
    assert list((tmp_path / "made").iterdir()) == pictures


def test_picture_that_cannot_be_written_is_an_error(
    images: list[Path], tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    (tmp_path / "file").touch()
    pictures = [tmp_path / "file" / "a.png"]
    detector = Detector(model, config, categories)
    with (
        PartialResults(tmp_path / "partial", {}, images[:1], pictures) as partial,
        pytest.raises(OSError, match="file"),
    ):
        write_results(detector, images[:1], pictures, partial, score_threshold=0.5, annotations=False)
    assert not (tmp_path / "partial").exists()
