"""Measures how fast this project is on this machine, and how much of the machine it uses.

    mrcnn-jax benchmark speed --peer=PEER/bin/python --json=benchmark.json
    mrcnn-jax benchmark speed --config=detectron2/mask_rcnn_r50_fpn_3x --only=stages,inference_b1

With --peer, an interpreter that has torch and torchvision, the same workloads run there, alternating with
this process and both warmed up, and the table has the ratio of the median times, theirs to ours. COCO's
metrics are compared with pycocotools in this process. There is no ratio if torchvision has no such model.

"of peak" is the fraction of a large matmul's FLOP/s, where a convolution counts the operations of its actual
algorithm; "of copy", for RoIAlign and RoIPool, is the fraction of a large copy's bandwidth, counting all maps
and results once. Both peaks are measured in the same run. --config chooses the model and the canvas, the
first of --config.data.canvases. Images, objects and weights are synthetic; single ops run in float32 whatever
the model's dtype. On a GPU, matmuls and convolutions of float32 use TF32 on both sides, unless
--precision=highest.

Workloads for --only: roi_align, roi_align_grad, roi_align_adaptive, roi_pool, nms_N (N boxes), paste_rle,
inference_bN (N images per batch), stages (of inference), train_step (or train_step_bN), train_memory,
first_step (from the start of a process, without and with a compilation cache), evaluation_bbox,
evaluation_segm, evaluation_keypoints; and, if asked for, onnx: our ONNX file and torchvision's own export of
the same model, in ONNX Runtime and OpenVINO, which PEER must have (docs/onnx.md).
"""

import functools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.benchmarks.peers import check_interpreter
from mrcnn_jax.runtime.setup import setup

_ROOT = Path(__file__).resolve().parents[1]
_WORKLOADS = [
    *("roi_align", "roi_align_grad", "roi_align_adaptive", "roi_pool", "nms_1024", "nms_2048", "nms_4096"),
    *("paste_rle", "inference_b1", "inference_b4", "stages", "train_step", "train_memory", "first_step"),
    *("evaluation_bbox", "evaluation_segm", "evaluation_keypoints"),
]
_OPTIONAL = ["onnx"]  # not measured by default

_config = command_line.define_config(default=_ROOT / "configs" / "torchvision" / "mask_rcnn_r50_fpn.py")
_ONLY = flags.DEFINE_list("only", _WORKLOADS, "workloads to run")
_PEER = flags.DEFINE_string("peer", None, "Python of an environment with torch and torchvision")
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_TURNS = flags.DEFINE_integer("turns", 5, "number of turns; medians are reported", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("train_batch_size", 2, "images per training step", lower_bound=1)
_PRECISION = flags.DEFINE_enum(
    "precision", "default", ["default", "highest"], "of matmuls and convolutions of float32 on an accelerator"
)
_IMAGES = flags.DEFINE_integer("images", 500, "images whose detections are evaluated", lower_bound=1)

# Workloads with processes of their own. They run first, in this order, before this one takes an accelerator.
_OWN_PROCESSES = ("first_step", "train_memory")

Row = dict[str, Any]


def main(_: list[str]) -> None:
    if _JSON.value:
        command_line.check_output("json", Path(_JSON.value))
    if _PEER.value:
        check_interpreter(_PEER.value)
        # It needs memory on the same accelerator.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if _PRECISION.value != "default":  # before JAX is imported, and also for processes started from here
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = _PRECISION.value
    setup()
    from mrcnn_jax.json_files import write_json

    for name in _ONLY.value:
        if (
            not re.fullmatch(r"nms_\d+|inference_b\d+|train_step_b\d+", name)
            and name not in _WORKLOADS + _OPTIONAL
        ):
            raise ValueError(
                f"--only={name}: unknown workload; choose from {', '.join(_WORKLOADS + _OPTIONAL)}"
            )
    rows: list[Row] = []
    own = [name for name in _OWN_PROCESSES if name in _ONLY.value]
    for name in own + [name for name in _ONLY.value if name not in own]:
        for row in _measure(name):
            _print_once(f"{'workload':<28} {'ours':>10} {'reference':>10} {'ratio':>7}")
            rows.append(row)
            print(_line(row), flush=True)
            if _JSON.value:
                write_json(Path(_JSON.value), rows)


def _measure(name: str) -> Iterator[Row]:
    if name in _OWN_PROCESSES:
        yield from _fresh(name)
    elif name.startswith("evaluation_"):
        yield _evaluate(name)
    elif name == "onnx":
        yield from _onnx()
    else:
        yield from _run(name)


def _run(name: str) -> Iterator[Row]:
    """Rows of the workloads of ``name``, compared with torchvision if --peer is given."""
    import jax
    import jax.numpy as jnp

    from mrcnn_jax.benchmarks.peak import copy_peak, matmul_peak
    from mrcnn_jax.benchmarks.peers.process import Peer
    from mrcnn_jax.benchmarks.timing import Local, median_seconds
    from mrcnn_jax.benchmarks.workloads import models, ops

    config = _config()
    _print_once(f"ours: {jax.devices()[0].device_kind}, jax {jax.__version__}, model in {config.model.dtype}")
    kind, _, number = name.rpartition("_")
    if name == "stages":
        workloads = models.stages(models.make_model(config))
    elif name.startswith("train_step"):
        model = models.make_model(config, choose_threshold=False)
        batch_size = int(number[1:]) if kind == "train_step" else _BATCH_SIZE.value
        workloads = [models.train(name, model, models.choose_objects(model, batch_size))]
    elif kind == "inference":
        workloads = [models.infer(name, models.make_model(config), int(number[1:]))]
    elif kind == "nms":
        workloads = [ops.suppress(name, boxes=int(number))]
    else:
        workloads = [ops.WORKLOADS[name](name)]
    peak = functools.cache(lambda: matmul_peak(jnp.dtype(config.model.dtype)))
    bandwidth = functools.cache(copy_peak)
    for workload in workloads:
        if _PEER.value and workload.settings:
            with Peer(_PEER.value, workload, precision=_PRECISION.value) as peer:
                _print_once(f"reference: {peer.system}")
                ours, theirs = median_seconds([Local(workload), peer], _TURNS.value)
        else:
            (ours,), theirs = median_seconds([Local(workload)], _TURNS.value), None
        row = _row(workload.name, ours, theirs)
        if workload.images:
            row["images_per_s"] = workload.images / ours
        if workload.flops and (flops := workload.flops()):
            row |= {"peak_per_s": peak(), "of_peak": flops / ours / peak()}
        if workload.moved_bytes:
            row |= {"copy_bytes_per_s": bandwidth(), "of_copy": workload.moved_bytes / ours / bandwidth()}
        yield row


def _onnx() -> Iterator[Row]:
    """Rows of our ONNX file and torchvision's, in each runtime that the interpreter of --peer has."""
    from mrcnn_jax.benchmarks.peers.process import Peer
    from mrcnn_jax.benchmarks.timing import median_seconds
    from mrcnn_jax.benchmarks.workloads import models, onnx_files

    if not _PEER.value:
        raise ValueError("--only=onnx needs --peer, with torchvision, onnx, onnxruntime and openvino")
    with tempfile.TemporaryDirectory() as folder:
        for ours, theirs in onnx_files.infer(models.make_model(_config()), Path(folder)):
            with Peer(_PEER.value, ours) as own, Peer(_PEER.value, theirs) as peer:
                yield _row(ours.name, *median_seconds([own, peer], _TURNS.value))


def _evaluate(name: str) -> Row:
    from mrcnn_jax.benchmarks.timing import Local, median_seconds
    from mrcnn_jax.benchmarks.workloads import evaluation

    workloads = evaluation.evaluate(name, _IMAGES.value)
    return _row(name, *median_seconds([Local(workload) for workload in workloads], _TURNS.value))


def _fresh(name: str) -> Iterator[Row]:
    """Rows of training steps in fresh processes: the first step's seconds, or the second step's memory."""
    import numpy as np

    from mrcnn_jax.benchmarks import fresh
    from mrcnn_jax.benchmarks.peers.process import Peer
    from mrcnn_jax.benchmarks.workloads import models

    config = _config()
    with tempfile.TemporaryDirectory() as cache:
        objects = fresh.choose_objects(config, _BATCH_SIZE.value, Path(cache) / "objects")
        first = fresh.measure(config, objects, Path(cache))
        if name == "first_step":
            yield _row("first_step", first["seconds"], None)
            cached = fresh.measure(config, objects, Path(cache))
            yield _row("first_step_cached", cached["seconds"], None)
            return
    theirs = None
    if _PEER.value:
        model = models.make_model(config, choose_threshold=False)
        workload = models.train(name, model, np.array(objects, np.float32))
        with Peer(_PEER.value, workload, precision=_PRECISION.value) as peer:
            _print_once(f"reference: {peer.system}")
            theirs = peer.peak_bytes()
    ratio = theirs / first["bytes"] if theirs else None
    yield {"workload": name, "ours_bytes": first["bytes"], "peer_bytes": theirs, "ratio": ratio}


@functools.cache
def _print_once(line: str) -> None:
    print(line, flush=True)


def _row(name: str, ours: float, theirs: float | None) -> Row:
    return {"workload": name, "ours_s": ours, "peer_s": theirs, "ratio": theirs / ours if theirs else None}


def _line(row: Row) -> str:
    if "ours_bytes" in row:
        sizes = row["ours_bytes"], row["peer_bytes"]
        values = [f"{size / 2**30:.2f} GiB" if size else "" for size in sizes]
    else:
        values = [_seconds(row["ours_s"]), _seconds(row["peer_s"])]
    ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
    shares = [f"{row[key]:.1%} {key.replace('_', ' ')}" for key in ("of_peak", "of_copy") if key in row]
    if "images_per_s" in row:
        shares.append(f"{row['images_per_s']:.3g} images/s")
    return f"{row['workload']:<28} {values[0]:>10} {values[1]:>10} {ratio:>7}  {' '.join(shares)}".rstrip()


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
