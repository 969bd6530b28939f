import json
from pathlib import Path

import pytest

from mrcnn_jax.inference.partial_results import Found, PartialResults

MADE_WITH = {"--step": 4, "--config.data.canvases": ((32, 64),)}


def found(score: float) -> Found:
    return Found(size=[3, 4], drawn=1, objects=[{"image_id": 0, "score": score}])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in paths:
        path.write_bytes(b"pixels")
    return paths


@pytest.fixture
def file(tmp_path: Path, images: list[Path]) -> Path:
    """The results of the first and the third image."""
    path = tmp_path / "out" / "partial.jsonl"
    partial = PartialResults(path, MADE_WITH, images, None)
    assert not path.parent.exists()
    partial.append(images[2], found(0.3))
    partial.append(images[0], found(0.1))  # no close: the process is killed
    return path


def scores(partial: PartialResults, images: list[Path]) -> list[tuple[int, float]]:
    return [(index, results["objects"][0]["score"]) for index, results in partial.read(images)]


def test_another_process_goes_on(file: Path, images: list[Path]) -> None:
    partial = PartialResults(file, MADE_WITH, images, None)
    assert [partial.is_done(image) for image in images] == [True, False, True]
    partial.append(images[1], found(0.2))
    assert scores(partial, images) == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert scores(partial, images[::-1]) == [(0, 0.3), (1, 0.2), (2, 0.1)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == {"made_with": {"--step": 4, "--config.data.canvases": [[32, 64]]}}
    assert [Path(line["file"]).name for line in lines[1:]] == ["c.jpg", "a.jpg", "b.jpg"]
    partial.remove()
    assert not file.exists()


@pytest.mark.parametrize("lost", [1, 30])
def test_a_line_that_was_not_completed_is_dropped(file: Path, images: list[Path], lost: int) -> None:
    file.write_bytes(file.read_bytes()[:-lost])
    partial = PartialResults(file, MADE_WITH, images, None)
    assert [partial.is_done(image) for image in images] == [False, False, True]
    partial.append(images[0], found(0.4))
    assert scores(PartialResults(file, MADE_WITH, images, None), images) == [(0, 0.4), (2, 0.3)]


def test_images_that_changed_are_not_done(file: Path, images: list[Path]) -> None:
    images[0].write_bytes(b"other pixels")
    images[2].unlink()
    partial = PartialResults(file, MADE_WITH, images, None)
    assert not any(map(partial.is_done, images)) and scores(partial, images) == []
    partial.append(images[0], found(0.5))
    assert scores(PartialResults(file, MADE_WITH, images, None), images) == [(0, 0.5)]


def test_images_whose_picture_would_have_another_name_are_not_done(
    images: list[Path], tmp_path: Path
) -> None:
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    partial = PartialResults(tmp_path / "file", MADE_WITH, images, pictures)
    for image in images:
        partial.append(image, found(0.1))
    pictures[1] = tmp_path / "b-2.png"
    again = PartialResults(tmp_path / "file", MADE_WITH, images, pictures)
    assert [again.is_done(image) for image in images] == [True, False, True]


def test_results_with_other_settings_are_not_lost(file: Path, images: list[Path]) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError) as error:
        PartialResults(file, {"--step": 5, "--pictures": "png"} | MADE_WITH | {"--step": 5}, images, None)
    assert str(error.value) == (
        f"{file} has the results of 2 images from an interrupted run with other settings:\n"
        "  --pictures: 'png' here, None there\n"
        "  --step: 5 here, 4 there\n"
        "use those settings to go on with it, or choose another --output, or remove the file to start anew"
    )
    assert file.read_bytes() == before


def test_without_results_other_settings_start_anew(file: Path, images: list[Path]) -> None:
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    partial = PartialResults(file, {"--step": 5}, images, None)
    partial.append(images[0], found(0.1))
    assert scores(PartialResults(file, {"--step": 5}, images, None), images) == [(0, 0.1)]


def test_results_of_other_images_are_not_lost(file: Path, images: list[Path]) -> None:
    with pytest.raises(
        ValueError, match="2 images from an interrupted run, 1 of which are not given now"
    ) as error:
        PartialResults(file, MADE_WITH, images[:2], None)
    assert f"such as {images[2]}\nname the same images" in str(error.value)


@pytest.mark.parametrize(("content", "line"), [("mine\n", 1), ("[]\n", 1), ('{"file": "a"}\n', 1)])
def test_another_file_of_that_name_is_left_alone(
    images: list[Path], tmp_path: Path, content: str, line: int
) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"file: line {line} is not of an interrupted run's results"):
        PartialResults(path, MADE_WITH, images, None)
    assert path.read_text() == content


def test_a_damaged_line_is_named(file: Path, images: list[Path]) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + "}\n" + lines[2])
    with pytest.raises(ValueError, match="line 2 is not of an interrupted run's results"):
        PartialResults(file, MADE_WITH, images, None)
