"""scripts/on_gpu.sh with a Python that runs nothing: its order, limits and commands, and what it keeps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "on_gpu.sh"

# Notes its arguments; writes the number of its calls where it is told to; fails if told to.
PYTHON = f"""#!/bin/sh
case "$1" in
    -c) case "$2" in
            *json*) exec {sys.executable} "$@" ;;
            *torch*|*pycocotools*) exit {{peer}} ;;
            *) exit 0 ;;
        esac ;;
    -) exit 0 ;;
esac
echo "$*" >> commands
for argument in "$@"; do
    case "$argument" in --json=*) wc -l < commands > "${{{{argument#--json=}}}}" ;; esac
done
case "$*" in *{{failing}}*) exit 3 ;; esac
"""

PARTS = [
    *("ops", "tests", "bfloat16_train", "bfloat16_inference", "profile_train", "roi", "tf32_train"),
    *("tf32_inference", "memory", "profile_inference", "float32_train", "float32_inference"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("on_gpu")


def run(directory, *parts, failing="nothing", peer=1, **settings):
    """The script's output; it lies in ``directory``, where its commands are noted."""
    scripts = directory / "scripts"
    scripts.mkdir(exist_ok=True)
    shutil.copy(SCRIPT, scripts)
    python = directory / "python"
    python.write_text(PYTHON.format(failing=failing, peer=peer))
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "JAX_PLATFORMS": "cpu", "OUT": "results"} | settings
    done = subprocess.run(
        ["bash", str(scripts / SCRIPT.name), *parts], env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def commands(directory):
    return (directory / "commands").read_text().splitlines()


def results(directory):
    return [json.loads(line) for line in (directory / "results" / "results.jsonl").read_text().splitlines()]


def test_parts_run_once_in_order_and_their_numbers_are_kept(tmp_path):
    output = run(tmp_path)
    assert (tmp_path / "results" / "done.txt").read_text().split() == PARTS
    assert len(commands(tmp_path)) == len(PARTS)
    numbered = {name: number for number, name in enumerate(PARTS, 1) if name != "tests"}
    assert results(tmp_path) == [{"part": n, "done": True, "numbers": k} for n, k in numbered.items()]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "done.txt",
        "log.txt",
        "results.jsonl",
    ]
    assert output in (tmp_path / "results" / "log.txt").read_text()
    assert "done before" in run(tmp_path) and len(commands(tmp_path)) == len(PARTS)


def test_a_part_that_fails_keeps_its_numbers_and_runs_again(tmp_path):
    run(tmp_path, "ops", "memory", failing="nms_8819")
    assert [(row["part"], row["done"]) for row in results(tmp_path)] == [("ops", False), ("memory", True)]
    run(tmp_path, "ops", "memory")
    assert [(row["part"], row["done"]) for row in results(tmp_path)[2:]] == [("ops", True)]


def test_nothing_starts_once_the_time_is_over(tmp_path):
    assert run(tmp_path, BUDGET="10").count("not started, as the 10 seconds are over") == len(PARTS)
    assert not (tmp_path / "commands").exists()


@pytest.mark.parametrize("quick", ["", "1"])
def test_the_program_accepts_the_commands(tmp_path, start, quick):
    run(tmp_path, QUICK=quick, peer=0)
    benchmarks = [command.split() for command in commands(tmp_path) if " benchmark " in command]
    assert len(benchmarks) == len(PARTS) - 1
    for words in benchmarks:
        assert words[:3] == ["-m", "mrcnn_jax", "benchmark"]
        # A result that cannot be written is an error after all flags are read, and before anything is run.
        arguments = [word for word in words[2:] if not word.startswith("--json=")]
        outcome = start(*arguments, "--json=no/numbers.json")
        assert outcome.stderr.startswith("error: --json=no/numbers.json: there is no folder no\n"), arguments


def test_speed_is_compared_if_there_is_a_torchvision(tmp_path):
    assert "nothing is compared" in run(tmp_path, "ops")
    (tmp_path / "results" / "done.txt").unlink()
    assert "compared" not in run(tmp_path, "ops", "bfloat16_inference", peer=0)
    alone, *compared = commands(tmp_path)
    assert "--peer" not in alone
    assert len(compared) == 2 and all(f"--peer={tmp_path / 'python'}" in command for command in compared)
