"""Finds objects in millions of images, by actors on a Ray cluster or on this machine; can be resumed.

    mrcnn-jax predict_many --workdir=runs/shapes --input=photos/ --output=found --actors=2
    mrcnn-jax predict_many --workdir=model.mrcnn --input=uris.txt --output=found --format=jsonl --actors=2
    mrcnn-jax predict_many --workdir=model.mrcnn --input=photos.parquet --output=found --actors=16 \\
        --address=auto --gpus_per_actor=1

Reads the images in a folder and its subfolders, in a list of paths and URIs (file, http, https, s3, gs), one
a line, or in a column of Parquet files, and writes a row for each: found/results/part-00000.parquet and so
on. Images that fail are listed in found/failed.jsonl with the reason, and do not stop the job; the exit code
is then 1.

Interrupted, or if actors or machines died, the same command goes on, with any number of actors: shards that
are done are skipped, and each image has one row in the end. With other images, weights or settings it is
refused. --retry_failed tries the images again that failed. Once all shards are done, --coco writes
found/detections.json, as mrcnn-jax predict does. Needs the extra [ray]; see docs/many_images.md.
"""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config
from mrcnn_jax.weights.zoo_models import model_config

if TYPE_CHECKING:
    from mrcnn_jax.many_images.inputs import Inputs
    from mrcnn_jax.many_images.job import Job
    from mrcnn_jax.many_images.model import Model

_LARGEST_IMAGE = 178_956_970  # pixels; Pillow's limit, which mrcnn-jax predict has

_ABANDONED = 86400  # seconds after which nobody goes on with an unfinished file

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory of the trained run or a published model's name (docs/zoo.md), which every machine must see "
    "under the same path, or a file that mrcnn-jax export wrote (docs/deployment.md), which is sent to them",
    required=True,
)
_STEP = command_line.define_step()
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "folder of images or of Parquet files, a Parquet file, or a text file with a path or URI a line; every "
    "machine must see the files under the same paths",
    required=True,
)
_COLUMN = flags.DEFINE_string(
    "column", None, "column of the Parquet files with the images' paths, URIs or bytes"
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "folder for the results, on a file system that every machine sees; new, or that of the job to go on with",
    required=True,
)
_FORMAT: flags.FlagHolder[str] = flags.DEFINE_enum(
    "format", "parquet", ["parquet", "jsonl"], "format of the results"
)
_ACTORS = flags.DEFINE_integer("actors", 1, "processes with a detector each", lower_bound=1)
_CPUS = flags.DEFINE_integer(
    "cpus_per_actor",
    None,
    "cores that an actor uses; on this machine its share, on a cluster 1 unless it is given",
    lower_bound=1,
)
_GPUS = flags.DEFINE_float("gpus_per_actor", 0.0, "GPUs that Ray gives to an actor", lower_bound=0)
_ADDRESS = flags.DEFINE_string(
    "address", None, "of a Ray cluster, such as auto or host:6379; without it RAY_ADDRESS, or this machine"
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "images per batch", lower_bound=1)
_SHARD_SIZE = flags.DEFINE_integer(
    "shard_size",
    None,
    "images of a file of results, and of an actor's task, which is lost if it dies; by default an eighth of "
    "an actor's share, at most 1000",
    lower_bound=1,
)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    0.0,
    "leave out objects under this score; 0 writes all that the model keeps (config.test.score_threshold)",
    lower_bound=0,
    upper_bound=1,
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    _LARGEST_IMAGE,
    "images with more pixels fail, before they are decoded",
    lower_bound=1,
    upper_bound=_LARGEST_IMAGE,
)
_RETRY_FAILED = flags.DEFINE_bool(
    "retry_failed", False, "try the images again that failed in an earlier run of the job"
)
_COCO = flags.DEFINE_bool(
    "coco", False, "also write detections.json, a COCO results list of all images, once the job is done"
)


def main(_: list[str]) -> int:
    if missing := [name for name in ("ray", "pyarrow") if find_spec(name) is None]:
        raise ValueError(
            f"mrcnn-jax predict_many needs {' and '.join(missing)}: pip install 'mrcnn_jax[ray]', or in a "
            "clone pip install -e '.[ray]'"
        )
    config = _override(model_config(_WORKDIR.value))
    cores = _cores()
    from mrcnn_jax.inference.predict import check_finds_objects
    from mrcnn_jax.many_images.job import begin_job, remove_unfinished
    from mrcnn_jax.many_images.model import describe_model
    from mrcnn_jax.weights.zoo import workdir_of

    check_finds_objects(config.model)
    inputs = _inputs(config)
    _check_output_is_apart(inputs)
    model = describe_model(
        workdir_of(_WORKDIR.value),
        _STEP.value,
        config,
        batch_size=_BATCH_SIZE.value,
        cores=0 if _GPUS.value else cores,  # with a GPU, XLA's threads are idle, and readers need all cores
    )
    limits = {"--score_threshold": _SCORE_THRESHOLD.value, "--max_pixels": _MAX_PIXELS.value}
    job = begin_job(
        Path(_OUTPUT.value).absolute(),
        inputs,
        format=_FORMAT.value,
        base=inputs.base,
        column=_COLUMN.value,
        shard_size=_SHARD_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        actors=_ACTORS.value,
        made_with=dict(model.made_with) | limits,
    )
    if line := inputs.describe_passed_over():
        print(line, flush=True)
    remove_unfinished(job, before=time.time() - _ABANDONED)
    if _RETRY_FAILED.value:
        print(f"{job.forget_failed()} images that failed are tried again", flush=True)
    try:
        _find_objects(job, model, cores)
    finally:
        code = _summarise(job)
    return code


def _cores() -> int:
    """The cores of an actor."""
    is_here = _ADDRESS.value is None and "RAY_ADDRESS" not in os.environ
    if _CPUS.value is not None or not is_here:
        return _CPUS.value or 1
    return max(1, len(os.sched_getaffinity(0)) // _ACTORS.value)


def _inputs(config: Config) -> "Inputs":
    from mrcnn_jax.channel_files import NPY_SUFFIX
    from mrcnn_jax.image_formats import suffixes
    from mrcnn_jax.many_images.inputs import Inputs
    from mrcnn_jax.pixels import PixelFormat

    wanted = suffixes() if PixelFormat.of(config).is_rgb else (*suffixes(), NPY_SUFFIX)
    return Inputs(Path(_INPUT.value), wanted, _COLUMN.value)


def _check_output_is_apart(inputs: "Inputs") -> None:
    """Raises ValueError if results would be written into the folder of images, and be read as new files."""
    output = Path(_OUTPUT.value).resolve()
    if inputs.path.is_dir() and output.is_relative_to(inputs.base):
        raise ValueError(f"--output={_OUTPUT.value}: lies in the folder of the images; choose another")


def _find_objects(job: "Job", model: "Model", cores: int) -> None:
    """Works on the shards that are not done; shows a progress bar."""
    from tqdm import tqdm

    from mrcnn_jax.many_images import ray_cluster

    todo = job.unfinished()
    left = sum(shard.size for shard in todo)
    if left < job.images:
        print(f"{job.images - left} of {job.images} images are done already ({job.folder})", flush=True)
    if not todo:
        return
    resources = ray_cluster.Resources(_ACTORS.value, cores, _GPUS.value)
    what = "1 actor" if _ACTORS.value == 1 else f"{_ACTORS.value} actors"
    print(f"starting {what}, which load the model and compile it ...", flush=True)
    ray_cluster.connect(_ADDRESS.value, resources)
    begin, workers = time.monotonic(), set()
    results = ray_cluster.run_shards(
        job,
        todo,
        ray_cluster.shipped(model),
        resources,
        score_threshold=_SCORE_THRESHOLD.value,
        max_pixels=_MAX_PIXELS.value,
    )
    with tqdm(total=job.images, initial=job.images - left, unit="image", disable=None) as bar:
        for result in results:
            workers.add(result["worker"])
            bar.update(result["images"])
    seconds = time.monotonic() - begin
    print(
        f"{left} images in {seconds:.0f} s, the start included, by {len(workers)} of {_ACTORS.value} actors",
        flush=True,
    )


def _summarise(job: "Job") -> int:
    """Writes what is made of all results, and says what there is; returns the exit code."""
    from mrcnn_jax.data.findings import printable
    from mrcnn_jax.images import describe_nearly_black
    from mrcnn_jax.inference.coco_sections import write_list
    from mrcnn_jax.inference.files import DETECTIONS
    from mrcnn_jax.many_images.job import remove_unfinished
    from mrcnn_jax.many_images.part_files import appearing
    from mrcnn_jax.many_images.rows import to_coco

    images, objects = 0, 0
    black: list[str] = []
    for _, done in job.finished():
        images += done.images
        objects += done.objects
        black += map(printable, done.nearly_black)
    path, failed = job.list_failed()
    if black:
        print(f"warning: {describe_nearly_black(black)}", file=sys.stderr)
    if images < job.images:
        print(
            f"{images} of {job.images} images are done ({job.folder}); run the same command to continue",
            file=sys.stderr,
        )
        return 1
    remove_unfinished(job)  # of actors that died
    print(f"{images - failed} images, {objects} objects in {job.part(0).parent}")
    if _COCO.value:
        detections = job.folder / DETECTIONS
        with appearing(detections) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            write_list(file, to_coco(job.rows()), exact=False)
            file.write("\n")
        print(f"as a COCO results list in {detections}")
    if failed:
        what = "1 image" if failed == 1 else f"{failed} images"
        print(f"error: {what} failed; see {path}", file=sys.stderr)
    return 1 if failed else 0
