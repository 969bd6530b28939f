"""Measures which stages of the model a training step or a prediction spends its time in.

    mrcnn-jax benchmark profile --work=train --batch_size=8 --config.model.dtype=bfloat16 --json=profile.json

JAX's profiler records some steps of the whole program, as it runs in training or inference. The time of each
operation is added to the innermost named scope that it comes from: "backbone", "fpn", "rpn", "proposals",
"roi_pooling", "box_head", "mask_head", "keypoint_head", "select_detections" or "optimizer"; what lies in none
of them is "other". "recomputed" is the forward pass repeated for the gradient. "idle" is the time of a step
in which a GPU or TPU ran none of its operations.

On a GPU the program runs without CUDA graphs, whose kernels the profiler cannot attribute, and so may be a
little slower than in training. On a CPU operations run at the same time, so that their sum may exceed a step.
--config chooses the model and the canvas, the first of --config.data.canvases. Images, objects and weights
are synthetic.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup

_ROOT = Path(__file__).resolve().parents[1]
_config = command_line.define_config(default=_ROOT / "configs" / "torchvision" / "mask_rcnn_r50_fpn.py")
_WORK = flags.DEFINE_enum("work", "train", ["train", "predict"], "the program")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 2, "images per step", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 5, "steps to record", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 15, "operations that take most of the time, to print", lower_bound=0)
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")


def main(_: list[str]) -> None:
    if _JSON.value:
        command_line.check_output("json", Path(_JSON.value))
    # Read when the GPU's backend is initialised; the CPU's and the TPU's ignore it.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer="
    setup()
    import jax

    from mrcnn_jax.benchmarks import trace
    from mrcnn_jax.benchmarks.workloads import models
    from mrcnn_jax.json_files import write_json

    config = _config()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, model in {config.model.dtype}", flush=True)
    make = models.training_program if _WORK.value == "train" else models.prediction_program
    program, run = make(config, _BATCH_SIZE.value)
    seconds, events = trace.record(run, _STEPS.value)
    operations = trace.read_operations(program.as_text() or "")
    report = trace.summarise(operations, events, _STEPS.value, 1000 * seconds)
    for line in _lines(report):
        print(line)
    if _JSON.value:
        about = {"work": _WORK.value, "batch_size": _BATCH_SIZE.value, "dtype": config.model.dtype}
        write_json(Path(_JSON.value), about | report)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{'ms per step':<20} {'all':>9} {'forward':>11} {'recomputed':>11} {'gradient':>11} {'share':>7}"
    step = report["step_ms"]
    for name, times in report["stages"].items():
        total = sum(times.values())
        parts = " ".join(f"{times[when]:11.3f}" for when in times)
        yield f"{name:<20} {total:9.3f} {parts} {total / step:7.1%}"
    for name, value in (("unknown operations", "unknown_ms"), ("idle", "idle_ms"), ("step", "step_ms")):
        yield f"{name:<20} {report[value]:9.3f} {'':35} {report[value] / step:7.1%}"
    if _TOP.value:
        yield "the operations that take most of the time:"
    for row in report["operations"][: _TOP.value]:
        yield f"{row['ms']:9.3f} ms  {row['name']}  {row['scope']}"
