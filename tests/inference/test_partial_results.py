import errno
import fcntl
import json
import shutil
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
    with PartialResults(path, MADE_WITH, images, None) as partial:
        assert not path.parent.exists()
        partial.append(images[2], found(0.3))
        partial.append(images[0], found(0.1))
        shutil.copy(path, tmp_path / "killed")  # before it is closed
    shutil.copy(tmp_path / "killed", path)
    return path


def scores(partial: PartialResults, images: list[Path]) -> list[tuple[int, float]]:
    return [(index, results["objects"][0]["score"]) for index, results in partial.read(images)]


def test_another_process_goes_on(file: Path, images: list[Path]) -> None:
    with PartialResults(file, MADE_WITH, images, None) as partial:
        assert [partial.is_done(image) for image in images] == [True, False, True]
        partial.append(images[1], found(0.2))
        assert scores(partial, images) == [(0, 0.1), (1, 0.2), (2, 0.3)]
        assert scores(partial, images[::-1]) == [(0, 0.3), (1, 0.2), (2, 0.1)]
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert lines[0] == {"made_with": {"--step": 4, "--config.data.canvases": [[32, 64]]}}
        assert [Path(line["file"]).name for line in lines[1:]] == ["c.jpg", "a.jpg", "b.jpg"]
        partial.remove()
    assert not file.exists()


def test_two_runs_do_not_write_the_same_file(images: list[Path], tmp_path: Path) -> None:
    """The second one begins before the file is there, the third and the fourth one after that."""
    path = tmp_path / "out" / "partial.jsonl"
    with (
        PartialResults(path, MADE_WITH, images, None) as first,
        PartialResults(path, MADE_WITH, images, None) as second,
    ):
        first.append(images[0], found(0.1))
        before = path.read_bytes()
        for _ in range(2):
            with pytest.raises(BlockingIOError, match=r"another run is writing here.*partial\.jsonl"):
                second.append(images[1], found(0.2))
        with pytest.raises(BlockingIOError, match=r"another run is writing here.*partial\.jsonl"):
            PartialResults(path, MADE_WITH, images, None)
        assert path.read_bytes() == before
        first.append(images[2], found(0.3))
        assert scores(first, images) == [(0, 0.1), (2, 0.3)]
        first.__exit__(None, None, None)  # it is killed
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="another run has begun this file meanwhile"):
                second.append(images[1], found(0.2))
    with PartialResults(path, MADE_WITH, images, None) as third:
        assert scores(third, images) == [(0, 0.1), (2, 0.3)]
        path.unlink()


def test_without_locks_no_results_are_mixed_up(
    file: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        PartialResults(file, MADE_WITH, images, None) as one,
        PartialResults(file, MADE_WITH, images, None) as other,
    ):
        one.append(images[1], found(0.2))
        with file.open("ab") as lines:  # of another run
            lines.write(b'{"file": "other.jpg"}\n')
        one.append(images[0], found(0.4))
        assert scores(one, images) == [(0, 0.4), (1, 0.2), (2, 0.3)]
        other.append(images[1], found(0.5))  # cuts off what it does not know
        with pytest.raises(ValueError, match=r"partial\.jsonl: another program has changed the results of"):
            scores(one, images)


@pytest.mark.parametrize("lost", [1, 30])
def test_a_line_that_was_not_completed_is_dropped(file: Path, images: list[Path], lost: int) -> None:
    file.write_bytes(file.read_bytes()[:-lost])
    with PartialResults(file, MADE_WITH, images, None) as partial:
        assert [partial.is_done(image) for image in images] == [False, False, True]
        partial.append(images[0], found(0.4))
    with PartialResults(file, MADE_WITH, images, None) as partial:
        assert scores(partial, images) == [(0, 0.4), (2, 0.3)]


def test_images_that_changed_are_not_done(file: Path, images: list[Path]) -> None:
    images[0].write_bytes(b"other pixels")
    images[2].unlink()
    with PartialResults(file, MADE_WITH, images, None) as partial:
        assert not any(map(partial.is_done, images)) and scores(partial, images) == []
        partial.append(images[0], found(0.5))
    with PartialResults(file, MADE_WITH, images, None) as partial:
        assert scores(partial, images) == [(0, 0.5)]


def test_images_whose_picture_would_have_another_name_are_not_done(
    images: list[Path], tmp_path: Path
) -> None:
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    with PartialResults(tmp_path / "file", MADE_WITH, images, pictures) as partial:
        for image in images:
            partial.append(image, found(0.1))
    pictures[1] = tmp_path / "b-2.png"
    with PartialResults(tmp_path / "file", MADE_WITH, images, pictures) as partial:
        assert [partial.is_done(image) for image in images] == [True, False, True]


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
    for _ in range(2):
        with PartialResults(file, {"--step": 5}, images, None) as partial:
            partial.append(images[0], found(0.1))
            assert scores(partial, images) == [(0, 0.1)]


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
