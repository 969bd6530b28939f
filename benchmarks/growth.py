"""Measures how time grows with the number of images, regions, objects, boxes and devices.

    mrcnn-jax benchmark growth --json=growth.json --png=growth.png
    XLA_FLAGS="--xla_force_host_platform_device_count=8 \
        --xla_cpu_collective_call_terminate_timeout_seconds=600" mrcnn-jax benchmark growth --only=devices

For each workload it prints the numbers, the milliseconds in all and per item, and the exponent e of "grows as
number ** e" over the last three numbers; e = 1 means that time is proportional to the number. Only NMS may
grow faster, at most quadratically: if all boxes are kept, each is compared with every other one. Here, as
among proposals, eight boxes lie near each object, and nearly half of all boxes are kept.

A training step with one image per device takes the same time on any number of devices, e = 0, if each
computes independently. The second command splits a CPU into devices that share its cores: there the time per
image should stay the same, e = 1.

--config chooses the model and the canvas, the first of --config.data.canvases. Images, objects and weights
are synthetic.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup


class Growth(NamedTuple):
    """A workload, and the numbers of items to time it with."""

    workload: str
    items: str
    numbers: tuple[int, ...]


GROWTHS = {
    "images": Growth("inference", "images of a batch", (1, 2, 4, 8)),
    "evaluation": Growth("evaluation of boxes", "images", (125, 250, 500, 1000)),
    "regions": Growth("RoIAlign and box head", "regions", (250, 500, 1000, 2000, 4000)),
    "objects": Growth("targets of training", "objects", (10, 20, 40, 80, 160, 320, 640)),
    "masks": Growth("masks pasted and encoded", "masks", (10, 25, 50, 100, 200, 400)),
    "boxes": Growth("NMS", "boxes", (512, 1024, 2048, 4096, 8192, 16384)),
    "devices": Growth("training step", "devices with an image each", (1, 2, 4, 8)),
}

_ROOT = Path(__file__).resolve().parents[1]
_config = command_line.define_config(default=_ROOT / "configs" / "torchvision" / "mask_rcnn_r50_fpn.py")
_ONLY = flags.DEFINE_list("only", list(GROWTHS), "measurements to make")
_POINTS = flags.DEFINE_integer("points", 7, "numbers per measurement, smallest first: fewer for a trial", 1)
_TURNS = flags.DEFINE_integer("turns", 5, "number of turns; medians are reported", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_PNG = flags.DEFINE_string("png", None, "file to draw curves to")

Row = dict[str, Any]


def main(_: list[str]) -> None:
    unknown = sorted(set(_ONLY.value) - set(GROWTHS))
    if unknown:
        raise ValueError(f"--only={','.join(unknown)}: unknown; choose from {', '.join(GROWTHS)}")
    for flag, value in (("json", _JSON.value), ("png", _PNG.value)):
        if value:
            command_line.check_output(flag, Path(value))
    setup()
    import jax

    from mrcnn_jax.json_files import write_json

    (device, *_), count, cores = jax.devices(), jax.device_count(), os.cpu_count()
    print(f"{device.platform}, {device.device_kind}; devices: {count}, cores of the host: {cores}")
    rows: dict[str, Row] = {}
    numbers = {"device": device.device_kind, "devices": count, "cores": cores, "growth": rows}
    for name in _ONLY.value:
        rows[name] = measure(name)
        print_row(rows[name])
        if _JSON.value:
            write_json(Path(_JSON.value), numbers)
        if _PNG.value:
            draw(list(rows.values()), Path(_PNG.value))


def measure(name: str) -> Row:
    """A workload's seconds for each of its numbers, which alternate so that all see the same machine load."""
    from mrcnn_jax.benchmarks.timing import Local, median_seconds
    from mrcnn_jax.benchmarks.workloads.growth import WORKLOADS, exponent

    growth = GROWTHS[name]
    workloads = WORKLOADS[name](_config(), growth.numbers[: _POINTS.value])
    seconds = median_seconds([Local(workload) for workload in workloads.values()], _TURNS.value)
    return {
        "workload": growth.workload,
        "items": growth.items,
        "numbers": list(workloads),
        "seconds": seconds,
        "exponent": exponent(list(workloads), seconds),
    }


def print_row(row: Row) -> None:
    print(f"\n{row['workload']}\n{row['items']:>26} {'ms':>10} {'ms each':>10}")
    for number, seconds in zip(row["numbers"], row["seconds"], strict=True):
        print(f"{number:>26} {1000 * seconds:10.4g} {1000 * seconds / number:10.4g}", flush=True)
    if row["exponent"] is not None:
        print(f"{'grows as number **':>26} {row['exponent']:10.2f}", flush=True)


def draw(rows: list[Row], path: Path) -> None:
    """Draws a panel per workload, with a line for time proportional to the number."""
    from mrcnn_jax.benchmarks.curves import Panel, draw_panels

    panels = []
    for row in rows:
        points = [(n, 1000 * s) for n, s in zip(row["numbers"], row["seconds"], strict=True)]
        last, longest = points[-1]
        curves = {"measured": points, "proportional": [(n, longest * n / last) for n, _ in points]}
        panels.append(Panel(f"{row['workload']}: milliseconds by {row['items']}", curves))
    draw_panels(panels, path)
