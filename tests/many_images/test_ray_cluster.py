"""Jobs on a real Ray cluster on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.many_images.job import remove_unfinished
from mrcnn_jax.many_images.part_files import read_rows
from mrcnn_jax.many_images.worker import Worker
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.many_images.conftest import CATEGORIES, BrightnessFinder, begin, write_image
from tests.run_command import ROOT, run_apart
from tests.serving.conftest import encoded, noise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (requirements-slow.txt)"),
]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {
    "PYTHONPATH": str(ROOT)
}


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory):
    """80 images, every tenth of which is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(80):
        path = write_image(folder / f"{number:02}.png", 20 + number)
        if number % 10 == 3:
            path.write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def whole(many_photos, tmp_path_factory):
    """The job, done in this process."""
    job = begin(tmp_path_factory.mktemp("whole") / "out", many_photos)
    worker = Worker(job, BrightnessFinder, score_threshold=0.0, max_pixels=1000)
    for shard in job.unfinished():
        worker.process(shard)
    return job


def start_slow_job(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.many_images.slow_job", *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_equal(job, whole):
    """Each image has one row, the same as without Ray, and each shard's file the same bytes."""
    rows = list(job.rows())
    assert Counter(row["image_id"] for row in rows) == dict.fromkeys(range(1, job.images + 1), 1)
    assert rows == list(whole.rows())
    for shard in whole.shards():
        assert job.part(shard.number).read_bytes() == whole.part(shard.number).read_bytes()
    remove_unfinished(job)  # what the killed processes were writing
    assert [path.name for path in sorted((job.folder / "results").iterdir())] == [
        f"part-{number:05d}.parquet" for number in range(20)
    ]
    assert job.list_failed()[1] == 8


def test_one_of_two_actors_is_killed(many_photos, whole, tmp_path):
    process = start_slow_job(many_photos, tmp_path / "out", "kill")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    workers = re.findall(r"^worker (\S+)$", out, re.MULTILINE)  # Ray reports the death between them
    assert len(workers) == 20 and len(set(workers)) == 3  # two, and the one that took the killed one's place
    assert workers.count(workers[0]) == 1
    check_equal(begin(tmp_path / "out", many_photos), whole)


def test_the_driver_is_killed(many_photos, whole, tmp_path):
    process = start_slow_job(many_photos, tmp_path / "out")
    lines = [process.stdout.readline() for _ in range(4)]  # shards that were done
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert all(lines)
    job = begin(tmp_path / "out", many_photos)
    done = {number: job.part(number).stat().st_mtime_ns for number, _ in job.finished()}
    assert 4 <= len(done) < 20
    process = start_slow_job(many_photos, tmp_path / "out")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert out.count("worker ") <= 20 - len(done)  # an actor may have finished another one meanwhile
    assert done == {number: job.part(number).stat().st_mtime_ns for number in done}
    check_equal(job, whole)


@pytest.fixture(scope="module")
def directory(tiny_config, tiny_weights, tmp_path_factory):
    """A run of the tiny model with random weights, and a folder of images, one of which is damaged."""
    path = tmp_path_factory.mktemp("work")
    data = replace(tiny_config.data, canvases=((64, 96), (96, 64)), long_side=96)
    config = replace(tiny_config, data=data, test=replace(tiny_config.test, mask_threshold=0.4))
    categories = replace(
        CATEGORIES,
        ids=(3, 7, 8, 9),
        names=("ball", "figure", "cone", "cube"),
        keypoint_names=tuple("abcdefghi"),
    )
    write_run(path / "run", config, categories)
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(0, 0.1, array.shape) for name, array in tiny_weights.items()}
    weights = {
        name: jnp.asarray(np.abs(x) if name.endswith("var") else x, jnp.float32) for name, x in drawn.items()
    }
    with Checkpoints(path / "run", keep=1) as checkpoints:
        checkpoints.save(7, weights, {"nothing": jnp.zeros(1)})
    (path / "photos").mkdir()
    for number in range(40):
        size = (48, 64) if number % 3 else (64, 48)
        (path / "photos" / f"{number:02}.png").write_bytes(encoded(noise(*size, seed=number)))
    (path / "photos" / "13.png").write_bytes(b"not an image")
    return path


def predict_many(directory, *arguments, workdir="run"):
    return run_apart(
        "predict_many",
        f"--workdir={workdir}",
        "--batch_size=2",
        "--shard_size=6",
        "--actors=2",
        "--cpus_per_actor=1",
        *arguments,
        directory=directory,
    )


def test_results_are_those_of_predict(directory):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # an actor has one, too; on more, sums may round differently
    try:
        outcome = run_apart(
            *("predict", "--workdir=run", "--output=plain", "--pictures=none", "--batch_size=2", "photos"),
            directory=directory,
        )
    finally:
        os.sched_setaffinity(0, cores)
    assert outcome.returncode == 1 and "1" in outcome.stderr
    wanted = json.loads((directory / "plain" / "detections.json").read_text())
    assert len({entry["file_name"] for entry in wanted}) == 39
    outcome = predict_many(directory, "--input=photos", "--output=parquet", "--coco")
    assert outcome.returncode == 1, outcome.stderr
    assert "error: 1 image failed; see" in outcome.stderr
    assert json.loads((directory / "parquet" / "detections.json").read_text()) == wanted
    (failure,) = map(json.loads, (directory / "parquet" / "failed.jsonl").read_text().splitlines())
    assert failure["image"] == "13.png" and "cannot be read: not an image" in failure["error"]

    outcome = run_apart(
        *("export", "--workdir=run", "--output=model.mrcnn", "--platforms=cpu", "--batch_sizes=2"),
        directory=directory,
    )
    assert outcome.returncode == 0, outcome.stderr
    names = [f"file://{directory}/photos/{number:02}.png" for number in range(40)]
    (directory / "list.txt").write_text("\n".join(names))
    outcome = predict_many(
        directory, "--input=list.txt", "--output=jsonl", "--format=jsonl", workdir="model.mrcnn"
    )
    assert outcome.returncode == 1, outcome.stderr

    def rows(name):
        return [row for path in sorted((directory / name / "results").iterdir()) for row in read_rows(path)]

    for one, other, name in zip(rows("parquet"), rows("jsonl"), names, strict=True):
        assert other["image"] == name and one | {"image": name, "error": None} == other | {"error": None}


def test_ctrl_c_and_go_on(directory):
    many = directory / "many"  # so many that they are not all done before the signal arrives
    many.mkdir()
    for path in (directory / "photos").iterdir():
        for copy in range(10):
            os.link(path, many / f"{copy}_{path.name}")
    command = [sys.executable, "-m", "mrcnn_jax", "predict_many", "--workdir=run", "--input=many"]
    command += ["--output=stopped", "--batch_size=2", "--shard_size=2", "--actors=2"]
    process = subprocess.Popen(
        command, cwd=directory, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list((directory / "stopped").glob("done/*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "of 400 images are done" in err and "run the same command to continue" in err
    again = subprocess.run(
        [*command, "--coco"], cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1 and "of 400 images are done already" in again.stdout, again.stderr
    assert "error: 10 images failed" in again.stderr
    (directory / "photos" / "13.png").write_bytes(encoded(noise(48, 64, seed=13)))
    retried = subprocess.run(
        [*command, "--retry_failed"],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    (directory / "photos" / "13.png").write_bytes(b"not an image")
    assert retried.returncode == 0, retried.stderr
    assert "10 images that failed are tried again" in retried.stdout


def test_what_is_refused(directory):
    for arguments, message in (
        (["--input=photos", "--output=photos/out"], "lies in the folder of the images"),
        (
            ["--input=photos", "--output=new", "--actors=1000"],
            "this machine is too small: --actors=1000 need",
        ),
        (["--input=nowhere", "--output=new2"], "nowhere: no such file or folder"),
    ):
        outcome = predict_many(directory, *arguments)
        assert outcome.returncode == 1 and message in outcome.stderr
    shutil.rmtree(directory / "new", ignore_errors=True)
