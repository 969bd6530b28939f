"""Measures what the size of COCO train2017 costs on the input side: seconds and memory of each part.

    python tests/scale/generate.py --output=FOLDER
    python tests/scale/measure.py --data=FOLDER --json=scale.json

Each part runs in a process of its own. ``seconds`` are those of the part itself, the imports left out, except
for the script of "prepare"; ``CPU`` are those of the process, imports included, and its children, which other
work on the machine lengthens less. ``peak`` is the most memory of that process and its children together:
every 50 ms their resident sets are added up, in which a page that two share counts twice. ``over`` is how far
that lies above the process just before the part. For batches the last column has the resident sets while they
are made. FOLDER also gets the records, and what is known of checked images, else kept in the home directory.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.json_files import write_json
from tests.scale.generate import ANNOTATIONS, IMAGES, KEYPOINTS

RECORDS = "records/coco_objects/instances_train2017/1.0.0"
MB = 1e6


def config_of(data: Path, *, records: bool, keypoints: bool) -> Config:
    """Images of 48 pixels in batches on one small canvas."""
    return Config(
        model=ModelConfig(keypoint=keypoints),
        data=DataConfig(
            root=str(data),
            train_images=IMAGES,
            train_annotations=ANNOTATIONS,
            train_keypoints=KEYPOINTS if keypoints else "",
            train_records=RECORDS if records else "",
            train_short_sides=(48,),
            long_side=64,
            canvases=((64, 64),),
        ),
    )


def open_data(config: Config) -> dict[str, Any]:
    """Opens the data and plans the batches."""
    from mrcnn_jax.data.open_data_source import open_data_source
    from mrcnn_jax.data.pipeline import plan_batches

    before, start = resident(), time.perf_counter()
    source = open_data_source(config)
    plan_batches(source, config.data, batch_size=16, seed=0, keypoints=config.model.keypoint)
    return {
        "seconds": time.perf_counter() - start,
        "before": before,
        "after": resident(),
        "images": len(source.ids),
        "objects": int(source.num_objects.sum()),
    }


def make_batches(config: Config, count: int) -> dict[str, Any]:
    """Makes batches of two images and looks at the memory 20 times, or after each of fewer."""
    from mrcnn_jax.data.open_data_source import open_data_source
    from mrcnn_jax.data.pipeline import training_batches

    source = open_data_source(config)
    before, start = resident(), time.perf_counter()
    batches = training_batches(
        source, config.data, batch_size=2, seed=0, masks=True, keypoints=config.model.keypoint
    )
    over_time = {}
    for number in range(1, count + 1):
        next(batches)
        if number % max(1, count // 20) == 0:
            over_time[number] = resident()
    return {"seconds": time.perf_counter() - start, "before": before, "over_time": over_time}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "open_data": open_data, "make_batches": make_batches,
}  # fmt: skip


def resident(pid: int | str = "self") -> int:
    """The bytes of a process that are in memory; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def family(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, path.read_text().split())
        except OSError:  # the thread has ended
            continue
    return [pid, *(member for child in children for member in family(child))]


def cpu_seconds() -> float:
    """Of all processes that were started from this one and have ended, and their children's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Runs a command; its seconds and peak memory, and the JSON of its last line if it prints one."""
    start, peak, spent = time.perf_counter(), 0, cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    while process.poll() is None:
        peak = max(peak, sum(map(resident, family(process.pid))))
        time.sleep(0.05)
    assert process.stdout
    lines = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with exit code {process.returncode}")
    result = {"seconds": time.perf_counter() - start, "cpu": cpu_seconds() - spent, "peak": peak}
    return result | (json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {})


def measure(data: Path, *, keypoints: bool, batches: int, folder_batches: int) -> dict[str, Any]:
    """The numbers of all parts, printed as they come."""
    home = data / "home"
    for made_before in (home, data / "records"):
        shutil.rmtree(made_before, ignore_errors=True)
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "JAX_PLATFORMS": "cpu"}

    def part(name: str, *, records: bool, count: int | None = None) -> list[str]:
        arguments = {"data": str(data), "records": records, "keypoints": keypoints}
        request = {"part": name, "arguments": arguments, "count": count}
        return [sys.executable, __file__, f"--request={json.dumps(request)}"]

    prepare = [sys.executable, "-m", "mrcnn_jax", "prepare", f"--images={data / IMAGES}"]
    prepare += [f"--annotations={data / ANNOTATIONS}", f"--output={data / 'records'}"]
    prepare += [f"--keypoints={data / KEYPOINTS}"] if keypoints else []
    commands = {
        "prepare": prepare,
        "open records": part("open_data", records=True),
        "open folder": part("open_data", records=False),
        "open folder again": part("open_data", records=False),
        f"{batches} batches of records": part("make_batches", records=True, count=batches),
        f"{folder_batches} batches of folder": part("make_batches", records=False, count=folder_batches),
    }
    print(f"| {'':<26} | seconds |   CPU | peak MB | over MB | while made, MB")
    found = {}
    for name, command in commands.items():
        found[name] = numbers = watch(command, environment)
        over = f"{(numbers['peak'] - numbers['before']) / MB:.0f}" if "before" in numbers else ""
        samples = " ".join(f"{value / MB:.0f}" for value in numbers.get("over_time", {}).values())
        print(
            f"| {name:<26} | {numbers['seconds']:>7.1f} | {numbers['cpu']:>5.0f} "
            f"| {numbers['peak'] / MB:>7.0f} | {over:>7} | {samples}",
            flush=True,
        )
    return found


def answer(request: dict[str, Any]) -> None:
    """Runs one part in this process and prints its numbers."""
    arguments = request["arguments"]
    config = config_of(Path(arguments.pop("data")), **arguments)
    more = [] if request["count"] is None else [request["count"]]
    print(json.dumps(PARTS[request["part"]](config, *more)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that generate.py wrote")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--keypoints", action="store_true", help="join the persons' keypoints, too")
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--folder_batches", type=int, default=4_000)
    parser.add_argument("--request", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.request:
        answer(json.loads(arguments.request))
        return
    found = measure(
        arguments.data.absolute(),
        keypoints=arguments.keypoints,
        batches=arguments.batches,
        folder_batches=arguments.folder_batches,
    )
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
