"""Measures how time grows with the number of images, regions, objects, boxes and devices.

    python -m benchmarks.growth --json=growth.json --png=growth.png
    XLA_FLAGS="--xla_force_host_platform_device_count=8 \
        --xla_cpu_collective_call_terminate_timeout_seconds=600" python -m benchmarks.growth --only=devices

For each work: the numbers, the milliseconds, those of each thing, and e of "grows as number ** e" over the
last three numbers. It is 1 where time is in proportion to the number. No work but NMS is to take more, and
NMS at most the square: that is when all boxes are kept, and each is compared with each. Here eight lie near
each of some objects, as among proposals, and all are kept that no other suppresses: nearly half.

A training step with an image on each device takes the same time on any number of them, e = 0, where each
computes by itself. Those that the second command makes of a CPU share its cores: there it is the time of each
image that is to stay the same, e = 1.

--config says which model, and on which canvas: the first of --config.data.canvases. Images, objects and
weights are made up.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup_jax


class Growth(NamedTuple):
    """What is done with how many things."""

    work: str
    things: str
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
_ONLY = flags.DEFINE_list("only", list(GROWTHS), "whose numbers grow")
_POINTS = flags.DEFINE_integer("points", 7, "numbers of each, from the smallest on: fewer for a trial", 1)
_TURNS = flags.DEFINE_integer("turns", 5, "of which the median counts", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_PNG = flags.DEFINE_string("png", None, "file to draw curves to")

Row = dict[str, Any]


def main(_: list[str]) -> None:
    unknown = sorted(set(_ONLY.value) - set(GROWTHS))
    if unknown:
        raise ValueError(f"--only={','.join(unknown)}: what grows is {', '.join(GROWTHS)}")
    setup_jax()
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
    """The seconds of a work on each of its numbers. These take turns, so that all see the machine alike."""
    from benchmarks.timing import Here, in_turns
    from benchmarks.workloads.growth import WORKS, exponent

    growth = GROWTHS[name]
    works = WORKS[name](_config(), growth.numbers[: _POINTS.value])
    seconds = in_turns([Here(work) for work in works.values()], _TURNS.value)
    return {
        "work": growth.work,
        "things": growth.things,
        "numbers": list(works),
        "seconds": seconds,
        "exponent": exponent(list(works), seconds),
    }


def print_row(row: Row) -> None:
    print(f"\n{row['work']}\n{row['things']:>26} {'ms':>10} {'ms each':>10}")
    for number, seconds in zip(row["numbers"], row["seconds"], strict=True):
        print(f"{number:>26} {1000 * seconds:10.4g} {1000 * seconds / number:10.4g}", flush=True)
    if row["exponent"] is not None:
        print(f"{'grows as number **':>26} {row['exponent']:10.2f}", flush=True)


def draw(rows: list[Row], path: Path) -> None:
    """A panel for each work, with the line of what is in proportion to the number."""
    from benchmarks.curves import Panel, draw_panels

    panels = []
    for row in rows:
        points = [(n, 1000 * s) for n, s in zip(row["numbers"], row["seconds"], strict=True)]
        last, longest = points[-1]
        curves = {"measured": points, "in proportion": [(n, longest * n / last) for n, _ in points]}
        panels.append(Panel(f"{row['work']}: milliseconds by {row['things']}", curves))
    draw_panels(panels, path)


if __name__ == "__main__":
    command_line.run(main)
