"""A region proposal network alone, and Fast R-CNN on its proposals, from the command line."""

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.inference.proposer import Proposer
from mrcnn_jax.proposals import ImageProposals, read_proposals, write_proposals
from tests.commands.test_commands import CONFIG_FILE
from tests.run_command import Outcome, run_killed

pytestmark = pytest.mark.slow  # trains an RPN, and Fast R-CNN on its proposals

Start = Callable[..., Outcome]

FILES = "--config.data.train_proposals=p/train.npz", "--config.data.val_proposals=p/val.npz"


@pytest.fixture(scope="module")
def directory(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the dataset ``shapes``, the settings ``rpn.py`` and ``fast.py``, and a folder for proposals."""
    path = tmp_path_factory.mktemp("proposals")
    make_shapes(path / "shapes", train=8, val=3, image_size=64, seed=0)
    (path / "shapes" / "p").mkdir()
    nothing = ImageProposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    write_proposals(path / "shapes/p/part.npz", [(1, nothing)])
    for name, part in (("rpn", "box"), ("fast", "rpn")):
        values = asdict(tiny_config)
        values["model"] |= {"mask": False, "keypoint": False, part: False}
        values["data"]["root"] = "shapes"
        values["train"] |= {"log_every": 1, "eval_every": 4}
        values["test"]["rpn_post_nms"] = 12
        (path / f"{name}.py").write_text(CONFIG_FILE.format(values=values))
    return path


@pytest.fixture(scope="module")
def trained(start: Start, shared_programs: None) -> str:
    """What the training of ``rpn`` printed."""
    done = start("train", "--config=rpn.py", "--workdir=rpn")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def proposed(trained: str, start: Start) -> list[str]:
    """What was printed when the proposals of both data sets were written."""
    lines = []
    for split in ("train", "val"):
        done = start("propose", "--workdir=rpn", f"--split={split}", f"--output=shapes/p/{split}.npz")
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines()[-1])
    return lines


def test_an_rpn_trains_on_its_own_losses(trained: str) -> None:
    losses, recall = [line for line in trained.splitlines() if line.startswith("step 4")]
    assert " rpn " in losses and " box " not in losses and " mask " not in losses
    assert recall.startswith("step 4: proposals AR@100 ") and ", AR@1000 " in recall


def test_its_recall_is_evaluated(trained: str, start: Start, directory: Path) -> None:
    done = start("evaluate", "--workdir=rpn")
    assert done.returncode == 0, done.stderr
    content = json.loads((directory / "rpn" / "evaluation.json").read_text())
    recall = content["proposals"]
    assert content["step"] == 4 and set(content) == {"step", "annotations", "proposals"}
    assert list(recall) == [f"AR{size}@{count}" for count in (100, 1000) for size in ("", "s", "m", "l")]
    assert 0 <= recall["AR@100"] == recall["AR@1000"] <= 100  # there are 12 proposals
    assert f"{recall['AR@100']:.1f}" in done.stdout and "1000 proposals" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "--output=out", "shapes/val"), "is a region proposal network alone"),
        (("evaluate", "--evaluator=pycocotools"), "--evaluator=pycocotools do not apply"),
        (("evaluate", "--save_detections=d.json"), "--save_detections and"),
        (("evaluate", "--config.model.mask"), "model.mask is True; must be False without the box head"),
    ],
)
def test_what_an_rpn_alone_cannot_do(
    trained: str, start: Start, directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = start(arguments[0], "--workdir=rpn", *arguments[1:])
    assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert not (directory / "out").exists()


def test_its_proposals_are_written(proposed: list[str], directory: Path) -> None:
    rows = (("train", 8, 16), ("val", 3, 12))  # train.rpn_post_nms, test.rpn_post_nms
    for line, (split, count, limit) in zip(proposed, rows, strict=True):
        file = read_proposals(directory / f"shapes/p/{split}.npz")
        content = json.loads((directory / f"shapes/annotations/instances_{split}.json").read_text())
        assert sorted(file.ids.tolist()) == sorted(image["id"] for image in content["images"])
        assert np.diff(file.offsets).tolist() == [limit] * count
        assert line == f"{len(file.boxes)} proposals of {count} images written to shapes/p/{split}.npz"
        assert (file.boxes >= 0).all() and (file.boxes <= 64).all()
        for first, last in zip(file.offsets[:-1], file.offsets[1:], strict=True):
            assert (np.diff(file.objectness[first:last]) <= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workdir=rpn", "--split=val", "--output=shapes/p/part.npz"), "already exists"),
        (("--workdir=rpn", "--split=val", "--coco=a.json", "--output=new.npz"), "give --workdir and --split"),
        (
            ("--workdir=rpn", "--coco=a.json", "--output=new.npz"),
            "--coco and --images must be given together",
        ),
        (
            ("--workdir=rpn", "--split=val", "--images=shapes", "--output=new.npz"),
            "--coco and --images must be given together",
        ),
        (
            ("--workdir=rpn", "--coco=a.json", "--images=absent", "--output=new.npz"),
            "--images=absent: there is no such folder",
        ),
        (("--workdir=rpn", "--split=val", "--output=val.pkl"), "must end in .npz"),
        (("--workdir=rpn", "--output=new.npz"), "give --workdir and --split"),
        (("--workdir=rpn", "--input=a.pkl", "--output=new.npz"), "cannot be combined with --workdir"),
        (("--workdir=rpn", "--split=val", "--output=absent/new.npz"), "there is no folder absent"),
    ],
)
def test_mistaken_flags(
    proposed: list[str], start: Start, directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = (directory / "shapes/p/part.npz").read_bytes()
    done = start("propose", *arguments)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert (directory / "shapes/p/part.npz").read_bytes() == before
    assert not (directory / "new.npz").exists()


def test_a_finished_file_is_left_alone(proposed: list[str], start: Start, directory: Path) -> None:
    """The same command succeeds; one with other settings does not."""
    arguments = ("propose", "--workdir=rpn", "--split=val", "--output=shapes/p/val.npz")
    path = directory / "shapes/p/val.npz"
    before = path.read_bytes(), path.stat().st_mtime_ns
    done = start(*arguments)
    message = "shapes/p/val.npz: is already there, made with the same weights, settings and images\n"
    assert done.returncode == 0 and done.stdout == message
    done = start(*arguments, "--config.test.rpn_post_nms=5")
    assert done.returncode == 1
    assert "already exists, made with other settings:\n  --config.test.rpn_post_nms: 5 here, 12 there\n" in (
        done.stderr
    )
    assert before == (path.read_bytes(), path.stat().st_mtime_ns)


# mrcnn-jax propose, killed while it writes the proposals of the fourth image.
KILLED = """
import os, signal
from mrcnn_jax import commands
from mrcnn_jax.proposal_records import RecordWriter

append, written = RecordWriter.append, []

def append_and_die(self, image_id, boxes, objectness):
    if len(written) == 3:
        self._file.write(b"half of a record")
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(append(self, image_id, boxes, objectness))
    return written[-1]

RecordWriter.append = append_and_die
commands.main()
"""


def test_interrupted_and_killed_it_goes_on_to_the_same_file(
    proposed: list[str], start: Start, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of two, of which one is half done."""
    flags = ("--workdir=rpn", "--split=train", "--batch_size=2")
    assert start("propose", *flags, "--output=whole.npz").returncode == 0
    arguments = ("propose", *flags, "--output=killed.npz")
    run_killed(KILLED, *arguments, directory=directory)
    assert not (directory / "killed.npz").exists()

    done = start(*arguments, "--config.train.rpn_post_nms=5")
    assert done.returncode == 1 and "\n  --config.train.rpn_post_nms: 5 here, 16 there\n" in done.stderr

    stream = Proposer.stream

    def interrupted(*arguments: Any, **options: Any) -> Any:
        yield from itertools.islice(stream(*arguments, **options), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Proposer, "stream", interrupted)
        done = start(*arguments)
    assert done.returncode == 130 and "\n3 of 8 images are done already" in done.stdout
    assert "5 of 8 images are in killed.npz.partial; run the same command to continue" in done.stderr

    done = start(*arguments)
    assert done.returncode == 0, done.stderr
    assert "\n5 of 8 images are done already (killed.npz.partial)\n" in done.stdout
    assert (directory / "killed.npz").read_bytes() == (directory / "whole.npz").read_bytes()
    assert not (directory / "killed.npz.partial").exists()


def test_images_that_a_file_lists(proposed: list[str], start: Start, directory: Path) -> None:
    """Without annotations, in its order; the proposals are those of the validation images."""
    content = json.loads((directory / "shapes/annotations/instances_val.json").read_text())
    listed = [entry | {"id": 900 + entry["id"]} for entry in content["images"]][::-1]
    (directory / "image_info.json").write_text(json.dumps({"images": listed}))
    given = ("--workdir=rpn", "--coco=image_info.json", "--images=shapes/val")
    done = start("propose", *given, "--output=listed.npz")
    assert done.returncode == 0, done.stderr
    found, wanted = (read_proposals(directory / name) for name in ("listed.npz", "shapes/p/val.npz"))
    assert found.ids.tolist() == [entry["id"] for entry in listed]
    sizes = np.full((3, 2), 64)
    of_found = found.of_images(found.ids[::-1], sizes, source="")
    of_wanted = wanted.of_images(found.ids[::-1] - 900, sizes, source="")
    for index in range(3):
        np.testing.assert_array_equal(of_found[index].boxes, of_wanted[index].boxes)


@pytest.fixture(scope="module")
def fast(proposed: list[str], start: Start) -> str:
    """What the training of ``fast`` on the proposals of ``rpn`` printed."""
    done = start("train", "--config=fast.py", "--workdir=fast", *FILES)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_trains_on_the_proposals(fast: str) -> None:
    losses, scores = [line for line in fast.splitlines() if line.startswith("step 4")]
    assert " box " in losses and " rpn " not in losses
    assert scores.startswith("step 4: bbox AP ")
    assert "train.rpn_post_nms asks for" not in fast


def test_it_is_evaluated_on_proposals(fast: str, start: Start, directory: Path) -> None:
    done = start("evaluate", "--workdir=fast", "--save_detections=found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((directory / "found.json").read_text())
    assert {entry["image_id"] for entry in found} <= set(read_proposals(directory / "shapes/p/val.npz").ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "--workdir=fast", "--output=out", "shapes/val"), "the model has no RPN"),
        (("propose", "--workdir=fast", "--split=val", "--output=new.npz"), "the model has no RPN"),
        (("evaluate", "--workdir=fast", "--config.data.val_proposals="), "data.val_proposals is empty"),
        (
            ("evaluate", "--workdir=fast", "--config.data.val_proposals=a.npz"),
            "shapes/a.npz: there is no such",
        ),
        (
            ("evaluate", "--workdir=fast", "--config.data.val_proposals=p/part.npz"),
            "p/part.npz: has no proposals for 2 of the 3 images",
        ),
        (("train", "--config=fast.py", "--workdir=new"), "data.train_proposals is empty"),
        (("train", "--config=rpn.py", "--workdir=new", FILES[0]), "must be empty for a model with an RPN"),
    ],
)
def test_what_a_model_without_an_rpn_cannot_do(
    fast: str, start: Start, directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = start(*arguments)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert not {"out", "new", "new.npz"} & {path.name for path in directory.iterdir()}


def test_files_of_detectron2_are_converted(start: Start, directory: Path) -> None:
    boxes = [np.array([[1, 2, 3, 5], [0, 0, 9, 9]], np.float32)]
    content = {"ids": [7], "boxes": boxes, "objectness_logits": [np.array([1, 2], np.float32)]}
    (directory / "box_proposals.pkl").write_bytes(pickle.dumps(content | {"bbox_mode": 1}))
    done = start("propose", "--input=box_proposals.pkl", "--output=converted.npz")
    assert done == (0, "2 proposals written to converted.npz\n", "")
    file = read_proposals(directory / "converted.npz")
    assert file.ids.tolist() == [7] and file.boxes.tolist() == [[0, 0, 9, 9], [1, 2, 4, 7]]
