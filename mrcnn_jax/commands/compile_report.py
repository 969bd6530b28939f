"""Compiles training or inference for a TPU or GPU that need not be here, and reports what it costs.

    mrcnn-jax compile_report --config=coco --topology=v5e:4x4 --work=train --batch=2 --dtype=bfloat16
    mrcnn-jax compile_report --config=coco --topology=h100 --work=predict --batch=8 --json=report.json

It prints memory against the chip's, time by stage and kind, loops, collectives, padding, the types of matmuls
and the kernels, and exits with code 1 if the program does not fit, has a loop over boxes, or devices exchange
more than the sums of gradients. Times are estimates (docs/accelerators.md). libtpu or JAX's CUDA plugin must
be installed, in an environment of its own: otherwise JAX would look for the devices in every other command.

With --fill_cache it compiles for this machine's own devices instead, all canvases at once, so that training
or inference with the same settings starts without compiling.
"""

import dataclasses
import json
import time
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config

_config = command_line.define_config()
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "chips to compile for: v5e:4x4 (also v4, v5p, v6e), h100, a100, h200; h100:8 is eight"
)
_WORK = flags.DEFINE_enum("work", "train", ["train", "predict"], "the training step, or inference")
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "images for each device, or each group of devices that share an image; default: the config's batch size, "
    "which counts those of all devices",
    lower_bound=1,
)
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "compute type; default: the config's model.dtype"
)
_CATEGORIES = flags.DEFINE_integer("categories", 80, "categories of the data", lower_bound=1)
_KEYPOINTS = flags.DEFINE_integer(
    "keypoints", 17, "keypoints of an object, if the model finds them", lower_bound=1
)
_TOP = flags.DEFINE_integer("top", 15, "operations to list", lower_bound=0)
_JSON = flags.DEFINE_string("json", None, "file to write the report to, as JSON")
_HLO = flags.DEFINE_string("hlo", None, "file to write the compiled program to, as text")
_FILL_CACHE = flags.DEFINE_bool("fill_cache", False, "compile all canvases for this machine's devices")


def main(_: list[str]) -> int:
    config = _config()
    for flag in (_JSON, _HLO):
        if flag.value is not None:
            command_line.check_output(flag.name, Path(flag.value))
    if _FILL_CACHE.value:
        return _fill_cache(config)
    if _TOPOLOGY.value is None:
        raise ValueError("--topology is missing; see --help")
    return _report(config, _TOPOLOGY.value)


def _report(config: Config, text: str) -> int:
    from mrcnn_jax.compile_report.chips import Topology, prepare_environment

    topology = Topology.parse(text)
    prepare_environment()
    import jax

    from mrcnn_jax.compile_report.programs import Objects, compile_for, lower_predict, lower_step
    from mrcnn_jax.compile_report.report import make_report
    from mrcnn_jax.compile_report.text import format_report
    from mrcnn_jax.distributed.sharding import make_mesh

    training = _WORK.value == "train"
    shared_by = (config.train if training else config.test).spatial_devices
    mesh = make_mesh(topology.devices(), spatial_devices=shared_by)
    config = _with_flags(config, mesh.shape["data"])
    canvas = config.data.canvases[0]
    lower = lower_step if training else lower_predict
    batch = config.train.batch_size if training else config.test.batch_size
    what = f"{_WORK.value}, {batch} images of {canvas[0]} x {canvas[1]} on {topology}, {config.model.dtype}"
    print(f"{what}: compiling, which takes minutes for a TPU ...", flush=True)
    start = time.perf_counter()
    lowered = lower(config, mesh, canvas, objects=Objects(_CATEGORIES.value, _KEYPOINTS.value))
    compiled = compile_for(lowered, topology)
    seconds = time.perf_counter() - start
    if _HLO.value:
        Path(_HLO.value).write_text(compiled.as_text() or "", encoding="utf-8")
    report = make_report(compiled, topology.chip, top=_TOP.value)
    allowed: tuple[str, ...] = ("all-reduce",) if training else ()
    if shared_by > 1:  # the rows beside a device's own, and the maps that regions are pooled from
        allowed = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute")
    problems = report.problems(allowed)
    print(f"compiled in {seconds:.0f} s (jax {jax.__version__})\n\n{format_report(report)}\n")
    print(
        "; ".join(problems) or f"fits; devices exchange {', '.join(allowed) or 'nothing'}; no loop over boxes"
    )
    if _JSON.value:
        described = {
            "work": _WORK.value,
            "topology": text,
            "images": batch,
            "canvas": canvas,
            "dtype": config.model.dtype,
            "seconds_to_compile": seconds,
            "problems": problems,
        }
        text = json.dumps(described | report.to_dict(), indent=1)
        Path(_JSON.value).write_text(text + "\n", encoding="utf-8")
    return 1 if problems else 0


def _with_flags(config: Config, groups: int) -> Config:
    """The config with the type of ``--dtype``, and ``--batch`` images for each group of devices."""
    model, train, test = config.model, config.train, config.test
    if _DTYPE.value:
        model = dataclasses.replace(model, dtype=_DTYPE.value)
    if _BATCH.value:
        batch = _BATCH.value * groups
        train = dataclasses.replace(train, batch_size=batch)
        test = dataclasses.replace(test, batch_size=batch)
    return dataclasses.replace(config, model=model, train=train, test=test)


def _fill_cache(config: Config) -> int:
    if _TOPOLOGY.value is not None:
        raise ValueError("--fill_cache compiles for this machine's devices: leave out --topology")
    from mrcnn_jax.runtime.setup import setup

    setup()
    import jax

    from mrcnn_jax.compile_report.cache import fill_cache
    from mrcnn_jax.compile_report.programs import Objects

    section = config.train if _WORK.value == "train" else config.test
    config = _with_flags(config, max(1, jax.device_count() // section.spatial_devices))
    objects = Objects(_CATEGORIES.value, _KEYPOINTS.value)
    for program, seconds in fill_cache(config, _WORK.value, objects=objects):
        print(f"{program}: {seconds:.0f} s", flush=True)
    print(f"compiled programs are in {jax.config.values['jax_compilation_cache_dir']}")
    return 0
