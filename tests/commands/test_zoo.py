"""The list of published models, and their downloads."""

import hashlib
import re
from pathlib import Path

import pytest

from mrcnn_jax.weights.download import cache_path
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, Weights
from tests.run_command import run_here

CONTENT = b"weights" * 2**18
NAME = "torchvision/resnet0"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of ``NAME``, a backbone that is in the cache, with no server behind it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    weights = Weights(NAME, f"http://127.0.0.1:1/resnet0-{digits}.pth", 1.75)
    monkeypatch.setitem(BACKBONES, NAME, weights)
    path = cache_path(weights)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


def test_it_lists_all_models_and_backbones(tmp_path: Path, here: Path) -> None:
    done = run_here("zoo", directory=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.findall(r"^\S+/\S+", done.stdout, re.MULTILINE) == [*MODELS, *BACKBONES]
    rows = {line.split()[0]: line.split()[1:] for line in lines if "/" in line}
    assert rows["torchvision/mask_rcnn_r50_fpn"] == ["37.9", "34.6", "169.8"]
    assert rows["detectron2/keypoint_rcnn_r50_fpn_3x"] == ["55.4", "65.5"]
    assert rows[NAME] == ["1.8", "here"] and "here" not in rows["torchvision/resnet50"]
    ends = {word: re.search(rf"{word}\b", lines[0]) for word in ("boxes", "masks", "keypoints", "MiB")}
    (keypoints,) = [line for line in lines if line.startswith("torchvision/keypoint_rcnn_r50_fpn ")]
    for word, value in (("boxes", "54.6"), ("masks", "    "), ("keypoints", "65.0"), ("MiB", "226.1")):
        found = ends[word]
        assert found and keypoints[: found.end()].endswith(value)


def test_the_file_of_a_name(tmp_path: Path, here: Path) -> None:
    assert run_here("zoo", NAME, NAME, directory=tmp_path) == (0, f"{here}\n{here}\n", "")
    here.unlink()
    done = run_here("zoo", NAME, directory=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert (
        f"cannot be downloaded: [Errno 111] Connection refused\nif you have the file, put it at {here}"
        in (done.stderr)
    )


def test_unknown_names_are_told_at_once(tmp_path: Path, here: Path) -> None:
    done = run_here("zoo", NAME, "torchvision/resnet_50", "yolo", directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    first, second, _ = done.stderr.splitlines()
    assert first.startswith("error: no published model is called torchvision/resnet_50; did you mean torch")
    assert second == "no published model is called yolo; mrcnn-jax zoo lists them"
