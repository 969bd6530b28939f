"""The commands of docs/four_step_training.md, in turn, with a tiny config in place of ``shapes``."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.runs.checkpoint import load_weights
from tests.commands.test_commands import CONFIG_FILE
from tests.run_command import ROOT, Outcome

DOCUMENT = ROOT / "docs" / "four_step_training.md"


def commands() -> list[list[str]]:
    text = re.sub(r"\\\n\s*", "", DOCUMENT.read_text(encoding="utf-8"))
    return [shlex.split(line) for line in re.findall(r"(?m)^ {4,}mrcnn-jax (.*)$", text)]


def test_the_document_has_every_step() -> None:
    names = [name for name, *_ in commands()]
    assert names == [
        "shapes", *("train", "propose", "propose"), "train", "evaluate",
        *("train", "propose", "propose"), "train", "convert", "evaluate",
    ]  # fmt: skip


@pytest.mark.slow  # trains four runs; test_propose.py and tests/weights/test_parts.py check their parts
def test_each_command_runs_as_written(
    start: Callable[..., Outcome], directory: Path, shared_programs: None
) -> None:
    for name, *arguments in commands():
        if name == "shapes":
            make_shapes(directory / "data/shapes", train=8, val=3, image_size=64, seed=0)
            continue
        given = ["--config=tiny.py" if word == "--config=shapes" else word for word in arguments]
        done = start(name, *given)
        assert done.returncode == 0, (name, arguments, done.stderr)
        if "--workdir=runs/rpn3" in given and name == "train":
            assert "begins from runs/heads2; re-initialised layers: rpn; left out: box_head, " in done.stdout
    metrics = json.loads((directory / "runs/joined/evaluation.json").read_text())
    assert {"bbox", "segm", "keypoints"} <= set(metrics)

    weights = {
        run: load_weights(directory / "runs" / run)[1] for run in ("heads2", "rpn3", "heads4", "joined")
    }
    for name, array in weights["joined"].items():
        part = name.partition(".")[0]
        origin = {"backbone": "heads2", "fpn": "heads2", "rpn": "rpn3"}.get(part, "heads4")
        np.testing.assert_array_equal(array, weights[origin][name], err_msg=name)
    moved = [name for name, array in weights["heads4"].items() if (array != weights["heads2"][name]).any()]
    assert {name.partition(".")[0] for name in moved} == {"box_head", "mask_head", "keypoint_head"}


@pytest.fixture(scope="module")
def directory(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the settings ``tiny.py`` and a folder for the runs."""
    path = tmp_path_factory.mktemp("four_steps")
    (path / "runs").mkdir()
    (path / "data").mkdir()
    values = asdict(tiny_config)
    values["data"]["root"] = "data/shapes"
    (path / "tiny.py").write_text(CONFIG_FILE.format(values=values))
    return path
