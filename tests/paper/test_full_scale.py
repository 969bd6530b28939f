"""The commands that are printed for COCO: every config in them is valid."""

import ast
import re
import shlex

import pytest

from mrcnn_jax.config import to_dict
from mrcnn_jax.config.io import from_dict, validate
from mrcnn_jax.paper.full_scale import commands
from mrcnn_jax.paper.full_tables import FULL_TABLES
from mrcnn_jax.weights.zoo_models import BACKBONES, named_config
from tests.run_command import run_here


def _flags(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments if argument[:2] == "--")


def _config(values, flags):
    """The config with these values and the changes among a command's flags."""
    for name, value in flags.items():
        if match := re.fullmatch(r"config\.(\w+)\.(\w+)", name):
            plain = value if isinstance(values[match[1]][match[2]], str) else ast.literal_eval(value)
            values[match[1]][match[2]] = plain
    config = from_dict(values)
    validate(config)
    return config


def _commands(number):
    """The commands of a table's script, their arguments, and the file in whose absence they are run."""
    script = "\n".join(commands(FULL_TABLES[number], "runs/paper"))
    for line in re.sub(r"(\\|\|\|)\n", r"\1 ", script).replace("\\ ", " ").splitlines():
        if line[:1] not in ("", "#"):
            words, unless = shlex.split(line), None
            if words[0] == "test":
                assert (words[1], words[3]) == ("-e", "||")
                unless, words = words[2], words[4:]
            assert words[0] == "mrcnn-jax"
            yield words[1], words[2:], unless


class _Run:
    """Runs the scripts of tables, one after another, as far as their files and configs are concerned."""

    def __init__(self):
        self.files, self.trained, self.evaluated = set(), {}, []

    def train(self, flags):
        config = _config(to_dict(named_config(flags["config"])), flags)
        assert self.trained.setdefault(flags["workdir"], (config, flags)) == (config, flags)
        if "init" in flags:
            begun = self.trained[flags["init"]][0].model
            assert (begun.box, begun.rpn) == (config.model.box, config.model.rpn)
        else:
            assert config.model.backbone_weights in BACKBONES
        data = config.data
        needed = {
            *data.more_train_annotations,
            *(() if config.model.rpn else (data.train_proposals, data.val_proposals)),
        }
        assert {f"{data.root}/{name}" for name in needed} <= self.files

    def propose(self, flags):
        assert not self.trained[flags["workdir"]][0].model.box
        self.files.add(flags["output"])

    def evaluate(self, flags):
        self.evaluated.append(_config(to_dict(self.trained[flags["workdir"]][0]), flags))

    def predict(self, flags):
        config = _config(to_dict(self.trained[flags["workdir"]][0]), flags)
        assert config.model.rpn and config.test.scales and config.test.flip
        self.files.add(f"{flags['output']}/detections.json")

    def distill(self, flags):
        assert flags["results"] in self.files and flags["output"] not in self.files
        self.files.add(flags["output"])


def _run(*numbers):
    run = _Run()
    for number in numbers:
        for command, arguments, unless in _commands(number):
            if unless not in run.files:
                getattr(run, command)(_flags(arguments))
    return run


@pytest.mark.parametrize("number", FULL_TABLES)
def test_by_running_the_commands(number):
    run = _run(*(["2a"] if number == "7" else []), number)
    rows = [row for row in FULL_TABLES[number].rows if row.config != "table8_4_imagenet_5k"]
    for row, evaluated in zip(rows, run.evaluated[-len(rows) :], strict=True):
        config = named_config(f"paper/{row.config}")
        assert evaluated.test == config.test, row
        assert evaluated.train == config.train
        changed = {
            name
            for name, value in to_dict(evaluated)["model"].items()
            if value != getattr(config.model, name)
        }
        assert changed <= {"rpn", "backbone_weights"}
    script = "\n".join(commands(FULL_TABLES[number], "runs/paper"))
    for row in FULL_TABLES[number].rows:
        line = next(line for line in script.splitlines() if line.startswith(f"# {row.label}: "))
        assert all(f" {value}" in line for value in row.paper.values())
        assert ("test-dev" in line) == (number in ("1", "3", "4"))


def test_tables_share_runs_and_proposals():
    run = _run(*FULL_TABLES)
    workdirs = {path.rpartition("/")[2] for path in run.trained}
    same = {
        *("table2b_sigmoid", "table2c_roi_align", "table2e_fcn", "table8_1_original", "table9_1_original"),
        *(
            "table2a_r101_c4",
            "table3_mask_r101_fpn",
            "table8_8_test_augmentation",
            "table9_6_test_augmentation",
        ),
        *("table5_keypoints", "table5_keypoints_masks", "table6_roi_align"),
    }
    assert not workdirs & same
    assert {"table2a_r50_c4", "table2a_r50_fpn", "table8_2_updated", "table8_3_end_to_end"} <= workdirs
    _run("2a", *reversed(FULL_TABLES))  # in another order


def test_a_table_without_a_small_scale_says_which_have_one(tmp_path):
    done = run_here("reproduce", "--table=8", directory=tmp_path)
    assert done.returncode == 1
    assert "--table=8 has no small scale, which tables 2a, 2b, 2c, 2d, 2e, 3, 5, 6 have" in done.stderr
    done = run_here("reproduce", "--table=8", "--scale=full", directory=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("# Table 8: ")
    done = run_here("reproduce", "--list", directory=tmp_path)
    assert "configs/paper/table2c_roi_pool.py\n" in done.stdout
    assert "configs/paper/table2a_x101_fpn.py  only --scale=full\n" in done.stdout
