"""``mrcnn-jax predict_many`` without Ray: a worker in this process takes the place of its actors."""

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from mrcnn_jax.many_images import model
from mrcnn_jax.many_images.worker import Worker
from mrcnn_jax.runs.description import write_run
from tests.many_images.conftest import CATEGORIES, BrightnessFinder, write_image
from tests.run_command import run_here

FIND_SPEC = importlib.util.find_spec


def stand_in():
    """A module in place of ``ray_cluster``, which stops after ``most`` shards."""

    def run_shards(job, shards, load, resources, **options):
        worker = Worker(job, load, **options)
        for number, shard in enumerate(shards):
            if number == module.most:
                raise KeyboardInterrupt
            yield worker.process(shard)

    module = ModuleType("ray_cluster")
    module.most = None
    module.Resources = lambda actors, cpus, gpus: (actors, cpus, gpus)
    module.connect = lambda address, resources: None
    module.run_shards = run_shards
    module.shipped = lambda described: BrightnessFinder
    return module


@pytest.fixture
def cluster(monkeypatch, photos, tiny_config, tmp_path):
    write_run(tmp_path / "run", tiny_config, CATEGORIES)
    module = stand_in()
    monkeypatch.setitem(sys.modules, "mrcnn_jax.many_images.ray_cluster", module)
    monkeypatch.setattr("mrcnn_jax.many_images.ray_cluster", module, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: FIND_SPEC("json"))
    described = SimpleNamespace(made_with={"--step": 7}, cores=1)
    monkeypatch.setattr(model, "describe_model", lambda *_, **__: described)
    return module


@pytest.fixture
def start(tmp_path, cluster):
    def run(*arguments, images="photos"):
        flags = "--workdir=run", f"--input={images}", "--output=out", "--shard_size=4"
        return run_here("predict_many", *flags, *arguments, directory=tmp_path)

    return run


def test_interrupted_and_resumed(start, cluster, photos, tmp_path):
    cluster.most = 1
    outcome = start()
    assert outcome.returncode == 130
    assert f"4 of 10 images are done ({tmp_path / 'out'}); run the same command" in outcome.stderr
    cluster.most = None
    outcome = start("--coco")
    assert outcome.returncode == 1
    assert f"4 of 10 images are done already ({tmp_path / 'out'})" in outcome.stdout
    assert f"9 images, 50 objects in {tmp_path / 'out' / 'results'}" in outcome.stdout
    assert "warning: 1 image is nearly black" in outcome.stderr and "9.png" in outcome.stderr
    assert f"error: 1 image failed; see {tmp_path / 'out' / 'failed.jsonl'}" in outcome.stderr
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(found) == 50 and found[0]["file_name"] == "0.png" and "keypoints" not in found[0]

    write_image(photos / "3.png", 30)
    outcome = start("--retry_failed")
    assert outcome.returncode == 0 and "1 images that failed are tried again" in outcome.stdout
    assert "10 images, 53 objects" in outcome.stdout
    assert (tmp_path / "out" / "failed.jsonl").read_text() == ""
    # All is done: nothing is started.
    cluster.most = 0
    assert start().returncode == 0


def test_a_second_command_leaves_what_the_workers_of_the_first_write(start, cluster, tmp_path):
    cluster.most = 1
    start()
    written = tmp_path / "out" / "results" / ".part-00001.parquet.1234.tmp"
    written.touch()
    start()
    assert written.exists()
    cluster.most = None
    start()  # to the end
    assert not written.exists()


def test_what_is_refused(start, photos, tmp_path):
    assert start().returncode == 1
    for arguments, message in (
        (("--format=jsonl",), "--format: 'jsonl' here, 'parquet' there"),
        (("--score_threshold=0.5",), "--score_threshold: 0.5 here, 0.0 there"),
        (("--output=photos/found",), "--output=photos/found: lies in the folder of the images"),
        (("--column=uri",), "--column: 'uri' here, None there"),
        (("--config.test.detectionz=3",), "unknown field config.test.detectionz"),
    ):
        outcome = start(*arguments)
        assert outcome.returncode == 1 and message in outcome.stderr
    (photos / "4.png").unlink()
    assert "image 5 is 5.png here, 4.png there, of 10" in start().stderr
    assert "nowhere: no such file or folder" in start("--output=new", images="nowhere").stderr


def test_without_ray(monkeypatch, tmp_path):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else FIND_SPEC(name, *rest)
    )
    flags = "--workdir=run", "--input=photos", "--output=out"
    outcome = run_here("predict_many", *flags, directory=tmp_path)
    assert outcome.returncode == 1
    assert "mrcnn-jax predict_many needs ray: pip install 'mrcnn_jax[ray]'" in outcome.stderr
