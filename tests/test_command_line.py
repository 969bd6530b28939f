import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrcnn_jax import command_line
from tests.run_command import ROOT, Outcome, run_here

SCRIPT = '''"""Trains nothing.

Usage: script.py --config=FILE
"""

import sys

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config

_config = command_line.{define}()
_workdir = flags.DEFINE_string("workdir", None, "the directory of the run", required=True)


def main(arguments):
    config = _config({saved})
    print(arguments, config.train.steps, config.model.mask, config.data.canvases, config.model.anchor_sizes)
    if _workdir.value == "missing":
        open("missing/file")
    if _workdir.value == "interrupted":
        raise KeyboardInterrupt
    return 3 if _workdir.value == "three" else None


command_line.run(main, positional={positional!r})
'''

CONFIG = """
from mrcnn_jax.config import Config

def get_config(steps="7"):
    config = Config()
    config.train.steps = int(steps)
    return config
"""

# One of two processes, whose peer waits: only os._exit ends it at once.
JOINED = """
import atexit
import contextlib
import sys
from unittest import mock

from mrcnn_jax import command_line
from mrcnn_jax.distributed import hosts

_hosts = command_line.define_hosts(handle_sigterm=False)
atexit.register(lambda: print("waiting for the others", file=sys.stderr))


def main(arguments):
    with _hosts(lambda: None):
        print("a line that nobody reads")
        raise {error}("the reason")


_peers = dict(is_single_process=lambda: False, fail_together=contextlib.nullcontext)
with mock.patch.multiple(hosts, join=mock.DEFAULT, **_peers):
    command_line.run(main)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scripts")
    (path / "train.py").write_text(SCRIPT.format(define="define_config", saved="", positional=""))
    (path / "predict.py").write_text(
        SCRIPT.format(define="define_overrides", saved="Config()", positional="the images")
    )
    (path / "config.py").write_text(CONFIG)
    (path / "d2.yaml").write_text("SOLVER: {MAX_ITER: 12, STEPS: [10]}")
    (path / "refused.yaml").write_text("MODEL: {ROI_BOX_HEAD: {TRAIN_ON_PRED_BOXES: True}}")
    (path / "no_config.py").write_text("def get_config():\n    return 3\n")
    return path


def start(directory: Path, script: str, *arguments: str) -> Outcome:
    return run_here(str(directory / script), *arguments, directory=directory)


def test_fields_are_overridden_by_type(directory):
    done = start(
        directory,
        *(
            "train.py",
            "--config=config.py",
            "--workdir=run",
            "--config.train.steps=9",
            "--noconfig.model.mask",
        ),
        *("--config.data.canvases=((1344, 1344),)", "--config.model.anchor_sizes=8,16,32,64,128"),
    )
    assert done.stderr == ""
    assert done.stdout == "[] 9 False ((1344, 1344),) (8.0, 16.0, 32.0, 64.0, 128.0)\n"
    assert done.returncode == 0


def test_a_word_is_passed_to_get_config(directory):
    done = start(directory, "train.py", "--config=config.py:11", "--workdir=run")
    assert done.stderr == ""
    assert done.stdout.startswith("[] 11 True")


def test_a_yaml_file_of_detectron2_and_fields_on_top(directory):
    done = start(directory, "train.py", "--config=d2.yaml", "--workdir=run", "--config.model.mask=True")
    assert done.stderr == ""
    assert done.stdout.startswith("[] 12 True")
    done = start(directory, "train.py", "--config=none.yaml", "--workdir=run")
    assert done.stderr.startswith("error: --config=none.yaml: there is no such file")


@pytest.mark.parametrize("flag", [["--config=refused.yaml"], ["--config", "refused.yaml"]])
def test_what_a_yaml_file_has_and_we_have_not(directory, flag):
    done = start(directory, "train.py", *flag, "--workdir=run")
    assert done.stderr.splitlines() == [
        "error: refused.yaml: MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES is True; must be False",
        "--config=refused.yaml:inference reads what prediction needs, without these",
        "--debug shows the traceback",
    ]
    done = start(directory, "train.py", *flag[:-1], f"{flag[-1]}:inference", "--workdir=run")
    assert done.stdout.startswith("[] 40000 False")


def test_overrides_of_a_given_config_and_positional_arguments(directory):
    done = start(directory, "predict.py", "--workdir=three", "--config.train.steps=5", "a.png", "b.png")
    assert done.stdout.startswith("['a.png', 'b.png'] 5 True")
    assert done.stderr == ""
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.stepz=3"], "unknown field config.train.stepz; nearest: steps"),
        (["--config.train.steps=three"], "flag --config.train.steps=three: invalid literal for int()"),
        (["--config.train.steps=0"], "train.steps is 0; must be positive"),
        (
            ["--config.data.canvases=(64,)"],
            "data.canvases is (64,); must be of type tuple[tuple[int, int], ...]",
        ),
        (["--config=none.py"], "--config=none.py: there is no such file"),
        (["--config=none.py:11"], "--config=none.py: there is no such file"),
        (["--config=no_config.py"], "no_config.py: get_config() returned int; must be a Config"),
        (["--config=config.py:x"], "flag --config=config.py:x: invalid literal for int() with base 10: 'x'"),
        (["--workdir=missing"], "missing/file: No such file or directory"),
        (["--worddir=run"], "Unknown command line flag 'worddir'. Did you mean: workdir ?"),
        (["steps=3"], "unexpected argument 'steps=3'; settings are given as --name=value"),
    ],
)
def test_errors_are_one_line_and_a_hint(directory, arguments, message):
    done = start(directory, "train.py", "--config=config.py", "--workdir=run", *arguments)
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {message}")
    assert hint == "--debug shows the traceback"
    assert done.returncode == 1


def test_a_missing_flag(directory):
    done = start(directory, "train.py", "--workdir=run")
    assert done.stderr == "error: --config is missing; see --help\n--debug shows the traceback\n"
    assert done.returncode == 1


def test_debug_shows_the_traceback(directory):
    done = start(directory, "train.py", "--config=config.py", "--workdir=missing", "--debug")
    assert "Traceback" in done.stderr
    assert "FileNotFoundError" in done.stderr
    assert done.returncode == 1


def test_an_interrupt_is_quiet(directory):
    done = start(directory, "train.py", "--config=config.py", "--workdir=interrupted")
    assert done.stderr == ""
    assert done.returncode == 130


def test_help_lists_the_script_and_its_flags(directory):
    done = start(directory, "predict.py", "--help")
    for text in (
        "Trains nothing.",
        "Arguments: the images",
        "--workdir: the directory of the run",
        "--[no]debug",
    ):
        assert text in done.stdout
    assert "pixel_mean" not in done.stdout
    assert done.returncode == 0


def start_unread(directory: Path, script: str, *arguments: str, unbuffered: bool) -> tuple[int, str]:
    """The exit code and stderr of a script whose stdout is a pipe that the reader has closed."""
    unread, output = os.pipe()
    os.close(unread)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, *(["-u"] if unbuffered else []), script, *arguments],
            cwd=directory,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(output)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [["--help"], ["--config=config.py", "--workdir=run"]])
def test_closing_the_output_is_quiet(directory, arguments, unbuffered):
    assert start_unread(directory, "train.py", *arguments, unbuffered=unbuffered) == (1, "")


@pytest.mark.parametrize("error", ["RuntimeError", "ValueError"])
def test_one_of_several_processes_exits_at_once_even_if_its_output_is_closed(tmp_path, error):
    (tmp_path / "joined.py").write_text(JOINED.format(error=error))
    code, message = start_unread(tmp_path, "joined.py", unbuffered=False)
    assert code == 1
    assert "the reason" in message
    assert "waiting for the others" not in message


def test_all_unknown_fields_are_reported_at_once():
    with pytest.raises(ValueError) as error:
        command_line._check_config_flags(
            [
                *("x.py", "--config.train.stepz=1", "-noconfig.modal.mask", "--config.data"),
                *("--config.train.lr=1", "--config.SOLVER.MAX_ITER", "--config.train.model_ema=True"),
                "--config.test.zebra=1",
            ]
        )
    lines = str(error.value).splitlines()
    assert len(lines) == 7
    assert lines[0] == "unknown field config.train.stepz; nearest: steps"
    assert lines[1] == "unknown field config.modal.mask; nearest: model.mask"
    assert lines[2].startswith("config.data is not a field; it has root, train_images, ")
    assert lines[3] == "unknown field config.train.lr; use train.learning_rate"
    assert lines[4] == "unknown field config.SOLVER.MAX_ITER; use train.steps"
    assert lines[5] == "unknown field config.train.model_ema; use train.ema_decay"
    assert lines[6].startswith(
        "unknown field config.test.zebra; test has batch_size, spatial_devices, rpn_pre_nms, "
    )


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "caf\\xe9 caf\\udce9 \\u732b"), ("utf-8", "café caf\\udce9 猫")]
)
def test_names_are_printed_on_any_terminal(encoding, shown):
    code = """
from mrcnn_jax import command_line
def main(arguments):
    print("café caf\\udce9 猫")
command_line.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode("utf-8") == f"{shown}\n" and done.returncode == 0
