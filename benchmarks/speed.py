"""Measures how fast this project is on this machine, and how much of the machine it uses.

    python -m benchmarks.speed --peer=PEER/bin/python --json=benchmark.json
    python -m benchmarks.speed --config=configs/detectron2/mask_rcnn_r50_fpn_3x.py --only=stages,inference_b1

With --peer, an interpreter that has torch and torchvision, the same works are done there, in turns with this
process and both warmed, and the table has the ratio of the medians: theirs to ours. COCO's metrics are
compared with pycocotools in this process. A config that torchvision has no model of has no ratio.

"of peak" is what is reached of the additions and multiplications per second of a large product of matrices,
where a convolution counts as many as its algorithm has; "of copy", for RoIAlign and RoIPool, of the bytes per
second of a large copy, where all maps and results count once. Both are timed in the same run. --config says
which model, and on which canvas: the first of --config.data.canvases. Images, objects and weights are made
up; single operations are in float32, whatever the model computes in.

Works, of which --only chooses: roi_align, roi_align_grad, roi_align_adaptive, roi_pool, nms_N (boxes),
paste_rle, inference_bN (images at a time), stages (of inference), train_step, train_memory, first_step (from
the start of a process, and once more with a compilation cache), evaluation_bbox, evaluation_segm and
evaluation_keypoints.
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
from mrcnn_jax.runtime.setup import setup_jax

_ROOT = Path(__file__).resolve().parents[1]
_WORKS = [
    *("roi_align", "roi_align_grad", "roi_align_adaptive", "roi_pool", "nms_1024", "nms_2048", "nms_4096"),
    *("paste_rle", "inference_b1", "inference_b4", "stages", "train_step", "train_memory", "first_step"),
    *("evaluation_bbox", "evaluation_segm", "evaluation_keypoints"),
]

_config = command_line.define_config(default=_ROOT / "configs" / "torchvision" / "mask_rcnn_r50_fpn.py")
_ONLY = flags.DEFINE_list("only", _WORKS, "works to do")
_PEER = flags.DEFINE_string("peer", None, "Python of an environment with torch and torchvision")
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_TURNS = flags.DEFINE_integer("turns", 5, "of which the median counts", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("train_batch_size", 2, "images of a training step", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 500, "images whose detections are evaluated", lower_bound=1)

# Works that want the machine for processes of their own: in this order, before this one takes an accelerator.
_OWN_PROCESSES = ("first_step", "train_memory")

Row = dict[str, Any]


def main(_: list[str]) -> None:
    if _JSON.value:
        command_line.check_output("json", Path(_JSON.value))
    if _PEER.value:  # which needs memory of the same accelerator
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    setup_jax()
    from mrcnn_jax.json_files import write_json

    for name in _ONLY.value:
        if not re.fullmatch(r"nms_\d+|inference_b\d+", name) and name not in _WORKS:
            raise ValueError(f"--only={name}: no such work; there are {', '.join(_WORKS)}")
    rows: list[Row] = []
    own = [name for name in _OWN_PROCESSES if name in _ONLY.value]
    for name in own + [name for name in _ONLY.value if name not in own]:
        for row in _measure(name):
            rows.append(row)
            print(_line(row), flush=True)
            if _JSON.value:
                write_json(Path(_JSON.value), rows)


def _measure(name: str) -> Iterator[Row]:
    if name in _OWN_PROCESSES:
        yield from _fresh(name)
    elif name.startswith("evaluation_"):
        yield _evaluate(name)
    else:
        yield from _run(name)


def _run(name: str) -> Iterator[Row]:
    """A work, or several, of the functions of this project, with the peer if there is one."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peak import copy_peak, multiplications_peak
    from benchmarks.peers.process import Peer
    from benchmarks.timing import Here, in_turns
    from benchmarks.workloads import models, ops

    config = _config()
    _say_once(f"here: {jax.devices()[0].device_kind}, jax {jax.__version__}, model in {config.model.dtype}")
    kind, _, number = name.rpartition("_")
    if name == "stages":
        works = models.stages(models.make_model(config))
    elif name == "train_step":
        model = models.make_model(config, choose_threshold=False)
        works = [models.train(name, model, models.choose_objects(model, _BATCH_SIZE.value))]
    elif kind == "inference":
        works = [models.infer(name, models.make_model(config), int(number[1:]))]
    elif kind == "nms":
        works = [ops.suppress(name, boxes=int(number))]
    else:
        works = [ops.WORKS[name](name)]
    peak = functools.cache(lambda: multiplications_peak(jnp.dtype(config.model.dtype)))
    bandwidth = functools.cache(copy_peak)
    for work in works:
        if _PEER.value and work.settings:
            with Peer(_PEER.value, work) as peer:
                _say_once(f"there: {peer.system}")
                ours, theirs = in_turns([Here(work), peer], _TURNS.value)
        else:
            (ours,), theirs = in_turns([Here(work)], _TURNS.value), None
        row = _row(work.name, ours, theirs)
        if work.operations and (operations := work.operations()):
            row |= {"peak_per_s": peak(), "of_peak": operations / ours / peak()}
        if work.moved_bytes:
            row |= {"copy_bytes_per_s": bandwidth(), "of_copy": work.moved_bytes / ours / bandwidth()}
        yield row


def _evaluate(name: str) -> Row:
    from benchmarks.timing import Here, in_turns
    from benchmarks.workloads import evaluation

    works = evaluation.evaluate(name, _IMAGES.value)
    return _row(name, *in_turns([Here(work) for work in works], _TURNS.value))


def _fresh(name: str) -> Iterator[Row]:
    """Training steps in processes of their own: the first one's seconds, or the second one's memory."""
    import numpy as np

    from benchmarks import fresh
    from benchmarks.peers.process import Peer
    from benchmarks.workloads import models

    config = _config()
    with tempfile.TemporaryDirectory() as cache:
        objects = fresh.choose_objects(config, _BATCH_SIZE.value, Path(cache) / "of objects")
        first = fresh.measure(config, objects, Path(cache))
        if name == "first_step":
            yield _row("first_step", first["seconds"], None)
            cached = fresh.measure(config, objects, Path(cache))
            yield _row("first_step_cached", cached["seconds"], None)
            return
    theirs = None
    if _PEER.value:
        model = models.make_model(config, choose_threshold=False)
        work = models.train(name, model, np.array(objects, np.float32))
        with Peer(_PEER.value, work) as peer:
            _say_once(f"there: {peer.system}")
            theirs = peer.peak_bytes()
    ratio = theirs / first["bytes"] if theirs else None
    yield {"work": name, "ours_bytes": first["bytes"], "peer_bytes": theirs, "ratio": ratio}


@functools.cache
def _say_once(line: str) -> None:
    print(line, flush=True)


def _row(name: str, ours: float, theirs: float | None) -> Row:
    return {"work": name, "ours_s": ours, "peer_s": theirs, "ratio": theirs / ours if theirs else None}


def _line(row: Row) -> str:
    if "ours_bytes" in row:
        sizes = row["ours_bytes"], row["peer_bytes"]
        values = [f"{size / 2**30:.2f} GiB" if size else "" for size in sizes]
    else:
        values = [_seconds(row["ours_s"]), _seconds(row["peer_s"])]
    ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
    shares = [f"{row[key]:.1%} {key.replace('_', ' ')}" for key in ("of_peak", "of_copy") if key in row]
    return f"{row['work']:<28} {values[0]:>10} {values[1]:>10} {ratio:>7}  {' '.join(shares)}".rstrip()


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


if __name__ == "__main__":
    command_line.run(main)
