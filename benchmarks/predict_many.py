"""Measures mrcnn-jax predict_many with several numbers of actors, and what Ray costs; predicts for more.

    mrcnn-jax benchmark predict_many --workdir=runs/shapes --actors=1,2 --predict=100 data/shapes/val

First a process without Ray works on the images, --repeats times, then actors do, all on --cpus_per_actor
cores. Rates are of the shards after each process's first, which leaves out the start. A null worker, whose
shards are done at once, shows how many shards pass Ray's driver in a second at most.

The prediction is arithmetic: the number of actors times the rate of one, up to the driver's limit.
"""

import multiprocessing
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from mrcnn_jax.many_images.inputs import Inputs
    from mrcnn_jax.many_images.job import Job
    from mrcnn_jax.many_images.model import Model

ARGUMENTS = "a folder of images"

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run, or a model file", required=True)
_ACTORS = flags.DEFINE_list("actors", ["1", "2"], "numbers of actors to measure")
_PREDICT = flags.DEFINE_integer("predict", 100, "number of actors to predict for", lower_bound=1)
_CPUS = flags.DEFINE_integer("cpus_per_actor", 1, "cores of an actor", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 2, "how often the images are worked on", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "images per batch", lower_bound=1)
_SHARD_SIZE = flags.DEFINE_integer("shard_size", 40, "images of a shard", lower_bound=1)
_NULL_SHARDS = flags.DEFINE_integer("null_shards", 2000, "shards of the null worker", lower_bound=1)

_LARGE_SHARD = 1000  # images of the shards that the prediction is for: the largest that is chosen
_OPTIONS: Any = {"score_threshold": 0.0, "max_pixels": 178_956_970}


class NullWorker:
    """Takes the place of a ``Worker`` whose shards are done at once: what is left is Ray."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"shard": batch["number"]}


def main(arguments: list[str]) -> None:
    from mrcnn_jax.image_formats import suffixes
    from mrcnn_jax.many_images import ray_cluster
    from mrcnn_jax.many_images.inputs import Inputs
    from mrcnn_jax.many_images.job import Shard
    from mrcnn_jax.many_images.model import describe_model
    from mrcnn_jax.weights.zoo import workdir_of
    from mrcnn_jax.weights.zoo_models import model_config

    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise ValueError(f"name one folder of images, not {arguments}")
    inputs = Inputs(Path(arguments[0]), suffixes())
    model = describe_model(
        workdir_of(_WORKDIR.value),
        None,
        model_config(_WORKDIR.value),
        batch_size=_BATCH_SIZE.value,
        cores=_CPUS.value,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = _new_job(Path(folder, "alone"), inputs, model)
        with multiprocessing.get_context("spawn").Pool(1) as process:
            alone = _report("without Ray", [process.apply(_work_alone, (job, model))])
        numbers = [int(number) for number in _ACTORS.value]
        most = ray_cluster.Resources(max(numbers), _CPUS.value, gpus=0)
        ray_cluster.connect(None, most)
        rates = {}
        for actors in numbers:
            job = _new_job(Path(folder, str(actors)), inputs, model)
            resources = ray_cluster.Resources(actors, _CPUS.value, gpus=0)
            ends: dict[str, list[float]] = defaultdict(list)
            begin = time.monotonic()
            for result in ray_cluster.run_shards(job, job.unfinished(), model.load, resources, **_OPTIONS):
                ends[result["worker"]].append(time.monotonic() - begin)
            rates[actors] = _report(f"{actors} actors", list(ends.values()))
            first, last = min(map(min, ends.values())), max(map(max, ends.values()))
            print(f"    the first shard was done after {first:.1f} s, the last after {last:.1f} s")
        shards = [Shard(number, number, 1, 0) for number in range(_NULL_SHARDS.value)]
        times = [
            time.monotonic() for _ in ray_cluster.run_shards(job, shards, model.load, most, worker=NullWorker)
        ]
        limit = (len(times) - 1) / (times[-1] - times[0])
    print(f"null worker: {limit:.0f} shards/s pass the driver")
    if 1 in rates:
        print(f"Ray adds {1000 / rates[1] - 1000 / alone:.1f} ms an image to {1000 / alone:.1f} ms")
    one = rates[max(numbers)] / max(numbers)
    print(
        f"predicted, not measured: {_PREDICT.value} actors, each with the rate of one of {max(numbers)} here "
        f"({one:.2f} images/s): {min(_PREDICT.value * one, limit * _LARGE_SHARD):.0f} images/s; the driver's "
        f"limit with shards of {_LARGE_SHARD} images is {limit * _LARGE_SHARD:.0f} images/s"
    )


def _new_job(folder: Path, inputs: "Inputs", model: "Model") -> "Job":
    """A job of the images, several times."""
    from mrcnn_jax.many_images.job import begin_job

    return begin_job(
        folder,
        (entry for _ in range(_REPEATS.value) for entry in inputs),
        format="parquet",
        base=inputs.base,
        column=None,
        shard_size=_SHARD_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        actors=1,
        made_with=model.made_with,
    )


def _work_alone(job: "Job", model: "Model") -> list[float]:
    """When each shard was done; all by this process, on an actor's share of the cores."""
    from mrcnn_jax.many_images.worker import Worker

    worker, ends = Worker(job, model.load, **_OPTIONS), []
    for shard in job.unfinished():
        worker.process(shard)
        ends.append(time.monotonic())
    return ends


def _report(name: str, ends: list[list[float]]) -> float:
    """Images per second of all workers, by the ends of their shards but the first; prints it."""
    rate = sum(_SHARD_SIZE.value * (len(each) - 1) / (each[-1] - each[0]) for each in ends if len(each) > 1)
    print(f"{name}: {rate:.2f} images/s", flush=True)
    return rate
