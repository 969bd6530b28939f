"""The program ``mrcnn-jax``, in the clone and installed from a wheel."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest

import mrcnn_jax
from mrcnn_jax.commands import BENCHMARKS, COMMANDS
from tests.run_command import ROOT, run_here

SCRIPTS = {
    "compile_report": "compile_report",
    "convert_weights": "convert", "evaluate": "evaluate", "make_shapes": "shapes", "predict": "predict",
    "prepare_coco": "prepare", "reproduce": "reproduce", "show_data": "show", "train": "train",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_it_lists_its_commands(tmp_path, arguments):
    done = run_here(*(arguments or ("--help",)), directory=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE) == [*COMMANDS, "benchmark"]
    assert "Trains a config in a run directory" in done.stdout


def test_its_version(tmp_path):
    assert run_here("--version", directory=tmp_path).stdout == f"mrcnn_jax {mrcnn_jax.__version__}\n"


def test_its_citation():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {mrcnn_jax.__version__}" in lines and "license: Apache-2.0" in lines


def test_an_unknown_command(tmp_path):
    done = run_here("trian", directory=tmp_path)
    assert done == (1, "", "error: unknown command 'trian'; see mrcnn-jax --help\n")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_benchmarks_are_listed(tmp_path, arguments):
    done = run_here("benchmark", *arguments, directory=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE) == list(BENCHMARKS)
    assert "\n  roi             Compares RoIAlign, in all its forms, with RoIPool" in done.stdout
    assert "RoIAlign" in run_here("benchmark", "roi", "--help", directory=tmp_path).stdout


def test_an_unknown_benchmark(tmp_path):
    done = run_here("benchmark", "sped", directory=tmp_path)
    assert done == (1, "", "error: unknown benchmark 'sped'; see mrcnn-jax benchmark --help\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_command(tmp_path, script):
    from_clone = run_here(str(ROOT / "scripts" / f"{script}.py"), "--help", directory=tmp_path)
    assert from_clone == run_here(SCRIPTS[script], "--help", directory=tmp_path)
    assert "--[no]debug" in from_clone.stdout and from_clone.returncode == 0


def test_every_script_is_tested():
    others = {"webcam", "draw_walkthrough", "run_notebooks"}  # in test_webcam.py, walkthrough/, docs/
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} == {*SCRIPTS, *others}


@pytest.mark.parametrize("flag", [("--config=shapes",), ("--config", "shapes")])
def test_a_config_of_this_project_by_name(tmp_path, flag):
    done = run_here("train", *flag, "--workdir=run", "--config.data.root=photos", directory=tmp_path)
    assert "error: photos: there is no such folder (data.root)" in done.stderr
    done = run_here("train", "--config=torchvision/none", "--workdir=run", directory=tmp_path)
    assert "this project has balloon, cityscapes, coco, convnext, detectron2/" in done.stderr
    # A folder of that name, such as the dataset, is no config; a file comes first.
    (tmp_path / "shapes").mkdir()
    done = run_here("train", *flag, "--workdir=run", "--config.data.root=photos", directory=tmp_path)
    assert "error: photos: there is no such folder (data.root)" in done.stderr
    (tmp_path / "shapes").rmdir()
    (tmp_path / "shapes").write_text("def get_config():\n    raise ValueError('the file')\n")
    assert "the file" in run_here("train", *flag, "--workdir=run", directory=tmp_path).stderr


def test_training_without_a_validation_set(tmp_path):
    for name in ("photos/train", "photos/annotations"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "photos/annotations/instances_train.json").touch()
    flags = "--config=finetune", "--config.data.root=photos", "--workdir=run", "--init=missing"
    done = run_here("train", *flags, directory=tmp_path)
    assert done.stderr.splitlines()[:3] == [
        "error: photos/val: there is no such folder (data.val_images)",
        "photos/annotations/instances_val.json: there is no such file (data.val_annotations)",
        "to train without evaluations: --config.train.eval_every=0",
    ]
    done = run_here("train", *flags, "--config.train.eval_every=0", directory=tmp_path)
    assert done.stderr.startswith("error: missing: there is no such directory")  # that of --init


def test_public_names():
    assert set(mrcnn_jax.__all__) <= set(dir(mrcnn_jax))
    for name in mrcnn_jax.__all__:
        assert getattr(mrcnn_jax, name).__doc__
    misspelt = "lode"
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        getattr(mrcnn_jax, misspelt)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package from its wheel, built from a copy of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel"]
    options = ["--no-deps", "--no-build-isolation", f"--wheel-dir={folder}"]
    copy = folder / "clone"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (source := ROOT / name).is_symlink() or source.is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            else:
                target.write_bytes(source.read_bytes())
    subprocess.run([*command, *options, str(copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_all_commands_configs_and_types(installed):
    (metadata,) = installed.glob("*.dist-info")
    assert "mrcnn-jax = mrcnn_jax.commands:main" in (metadata / "entry_points.txt").read_text()
    assert (installed / "mrcnn_jax" / "py.typed").is_file()
    assert (installed / "mrcnn_jax" / "serving" / "page_files" / "page.html").is_file()
    assert {path.name for path in installed.iterdir()} == {"mrcnn_jax", metadata.name}
    for kind in ("configs", "benchmarks", "commands"):
        packed, own = installed / "mrcnn_jax" / kind, ROOT / "mrcnn_jax" / kind
        assert {path.relative_to(packed) for path in packed.rglob("*.py")} == {
            path.relative_to(own) for path in own.rglob("*.py")
        }


def run_installed(installed: Path, directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mrcnn_jax", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_runs_outside_the_clone(installed, tmp_path):
    run_installed(installed, tmp_path, "shapes", "--output=shapes", "--train=8", "--val=1", "--image_size=64")
    assert len(list((tmp_path / "shapes" / "train").iterdir())) == 8


@pytest.mark.slow  # compiles the training step in a process of its own
def test_the_wheel_trains(installed, tiny_config, tmp_path):
    values = asdict(tiny_config)
    values["data"]["root"] = "shapes"
    values["train"]["steps"] = 1
    lines = (
        "from mrcnn_jax.config.io import from_dict",
        "def get_config():",
        f"    return from_dict({values!r})",
    )
    (tmp_path / "tiny.py").write_text("\n".join(lines))
    run_installed(installed, tmp_path, "shapes", "--output=shapes", "--train=8", "--val=1", "--image_size=64")
    assert "trained for 1 steps" in run_installed(
        installed, tmp_path, "train", "--config=tiny.py", "--workdir=run"
    )
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()


# Runs a command, then tells whether JAX was imported.
COMMAND = """
import atexit
import sys

atexit.register(lambda: print("jax" in sys.modules))
from mrcnn_jax import commands

commands.main()
"""


@pytest.mark.parametrize(
    ("arguments", "variables", "message", "imported"),
    [
        ("train --config=shapes --workdir=run", {}, "data/shapes: there is no such folder", False),
        ("train --config=shapes --workdir=run --data=mine", {}, "mine: there is no such folder", False),
        ("evaluate --workdir=run", {}, "run: there is no such directory", False),
        ("serve --workdir=run", {}, "run: there is no such directory", False),
        ("predict --workdir=model.pth --output=out photo.jpg", {}, "model.pth: is a file, not the", False),
        ("convert --source=run --input=none --config=shapes --workdir=run", {}, "none: there is no", False),
        ("convert --source=torchvision --input=a.pth --config=shapes --workdir=run", {}, "a.pth: No", False),
        # Perhaps there are other processes, which must end, too.
        ("train --config=shapes --workdir=run", {"SLURM_JOB_ID": "1"}, "data/shapes: there is no such", True),
    ],
)  # fmt: skip
def test_what_is_missing_is_reported_before_jax_is_imported(
    tmp_path, arguments, variables, message, imported
):
    for name in ("model.pth", "photo.jpg"):
        (tmp_path / name).touch()
    own = {name: value for name, value in os.environ.items() if "KUBERNETES" not in name}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments.split()],
        cwd=tmp_path,
        env={**own, "JAX_PLATFORMS": "cpu", **variables},
        capture_output=True,
        text=True,
    )
    assert done.stderr.startswith(f"error: {message}")
    assert done.stdout == f"{imported}\n"
    assert done.returncode == 1
