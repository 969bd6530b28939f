"""Compiles the programs of all canvases ahead of time, into JAX's persistent cache."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

import jax
from jax.sharding import Mesh

from mrcnn_jax.compile_report.programs import Canvas, Objects, lower_predict, lower_step, lower_view
from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.detector import mesh_of_batch
from mrcnn_jax.inference.views import canvases_of, views_of


def fill_cache(config: Config, work: str, *, objects: Objects) -> Iterator[tuple[str, float]]:
    """Compiles what "train" or "predict" runs on this machine; yields each program, and its seconds.

    Canvases are compiled at once, in as many threads as there are cores: XLA uses few of them for one
    program. The cache's directory must have been set (``runtime.setup``). Raises ValueError, before it
    compiles, for training whose program depends on the data by more than ``objects``.
    """
    if work == "train":
        _check_depends_on_no_data(config.train)

    def compile_one(lower: Callable[[], jax.stages.Lowered]) -> float:
        start = time.perf_counter()
        lower().compile()
        return time.perf_counter() - start

    programs = _programs(config, work, objects)
    with ThreadPoolExecutor(min(len(programs), os.cpu_count() or 1)) as threads:
        names = {threads.submit(compile_one, lower): name for name, lower in programs.items()}
        for done in as_completed(names):
            yield names[done], done.result()


def _check_depends_on_no_data(train: TrainConfig) -> None:
    if train.epochs and train.schedule == "cosine":
        raise ValueError(
            "train.epochs: with the cosine schedule the step depends on the number of images; give the steps "
            "that training shows, by --config.train.steps=N --config.train.epochs=0, here and to train"
        )
    if train.federated_classes:
        raise ValueError(
            "train.federated_classes: the step depends on how many images have each category, and cannot be "
            "compiled ahead"
        )


def _programs(config: Config, work: str, objects: Objects) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """The functions that lower each program, by its name."""
    train, test = config.train, config.test
    programs: dict[str, Callable[[], jax.stages.Lowered]] = {}

    def add(name: str, lower: Callable[..., jax.stages.Lowered], canvases: Iterable[Canvas]) -> None:
        for canvas in canvases:
            what = f"{name} for canvas {canvas[0]}x{canvas[1]}"
            programs[what] = partial(lower, canvas, objects=objects)

    def add_inference(config: Config, mesh: Mesh) -> None:
        canvases = canvases_of(config)
        if len(views_of(config)) == 1:
            add("inference", partial(lower_predict, config, mesh), canvases)
            return
        add("inference of boxes", partial(lower_view, config, mesh, given_boxes=False), canvases)
        if config.model.mask or config.model.keypoint:
            name = "inference of given boxes' masks and keypoints"
            add(name, partial(lower_view, config, mesh, given_boxes=True), canvases)

    if work == "train":
        mesh = make_mesh(spatial_devices=train.spatial_devices)
        add("the training step", partial(lower_step, config, mesh), config.data.canvases)
        if train.eval_every:  # as training evaluates: on all devices of the process
            mesh = make_mesh(jax.local_devices(), spatial_devices=test.spatial_devices)
            batch = math.lcm(test.batch_size, mesh.shape["data"])
            evaluated = dataclasses.replace(config, test=dataclasses.replace(test, batch_size=batch))
            add_inference(evaluated, mesh)
    else:
        mesh = mesh_of_batch(test.batch_size, test.spatial_devices)
        add_inference(config, mesh)
    return programs
