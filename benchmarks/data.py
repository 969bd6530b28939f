"""Measures how fast training batches are made, and how long each stage takes.

    mrcnn-jax benchmark data --config=coco --config.data.root=COCO --peer=PEER/bin/python \
        --json=data.json

Prints images per second, bytes per batch, and milliseconds per image of each stage. With --peer, an
interpreter that has torch, torchvision and pycocotools, it also measures a PyTorch DataLoader like that of
torchvision's reference training, alternating with ours on the same cores, and prints the ratios. Both use one
process or thread per core, and no model.
"""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.benchmarks.peers import check_interpreter
from mrcnn_jax.config.paths import check_data_paths

_config = command_line.define_config()
_PEER = flags.DEFINE_string("peer", None, "Python of an environment with torch, torchvision and pycocotools")
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_IMAGES = flags.DEFINE_integer("images", 200, "images to time per turn", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 3, "number of turns; medians are reported", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 2, "images per batch", lower_bound=1)


def main(_: list[str]) -> None:
    from mrcnn_jax.json_files import write_json

    config = _config()
    check_data_paths(config, "train")
    if _PEER.value:
        check_interpreter(_PEER.value)
    if _JSON.value:
        command_line.check_output("json", Path(_JSON.value))
    ours, theirs = [], []
    for _turn in range(_TURNS.value):
        ours.append(_ours(config))
        if _PEER.value:
            theirs.append(_theirs(config))
    numbers: dict[str, Any] = {name: _median(ours, name) for name in ours[0]}
    if theirs:
        numbers |= {f"peer_{name}": _median(theirs, name) for name in theirs[0]}
    numbers["stages"] = _stages(config)
    print(f"{numbers['images_per_second']:.1f} images/s, {numbers['bytes_per_batch'] / 1e6:.1f} MB a batch")
    if theirs:
        print(
            f"reference: {numbers['peer_images_per_second']:.1f} images/s, "
            f"{numbers['peer_bytes_per_batch'] / 1e6:.1f} MB a batch; "
            f"{numbers['images_per_second'] / numbers['peer_images_per_second']:.1f} times its images/s, "
            f"{numbers['bytes_per_batch'] / numbers['peer_bytes_per_batch']:.2f} of its bytes"
        )
    print("milliseconds per image of each stage, on one core:")
    for name, value in numbers["stages"].items():
        print(f"  {name:<8} {value:6.2f}")
    if _JSON.value:
        write_json(Path(_JSON.value), numbers)


def _median(turns: list[dict[str, float]], name: str) -> float:
    return statistics.median(turn[name] for turn in turns)


def _ours(config: Any) -> dict[str, float]:
    """Images per second and bytes per batch of the training pipeline."""
    import jax

    from mrcnn_jax.data.open_data_source import open_data_source
    from mrcnn_jax.data.pipeline import training_batches

    batches = training_batches(
        open_data_source(config),
        config.data,
        batch_size=_BATCH_SIZE.value,
        seed=0,
        masks=config.model.mask,
        keypoints=config.model.keypoint,
    )
    for _warm in range(4):
        next(batches)
    count, size = -(-_IMAGES.value // _BATCH_SIZE.value), 0
    start = time.perf_counter()
    for _step in range(count):
        size += sum(leaf.nbytes for leaf in jax.tree.leaves(next(batches)))
    seconds = time.perf_counter() - start
    return {"images_per_second": count * _BATCH_SIZE.value / seconds, "bytes_per_batch": size / count}


def _theirs(config: Any) -> dict[str, float]:
    """Images per second and bytes per batch of torchvision's pipeline, in the interpreter of --peer."""
    data = config.data
    command = [
        str(_PEER.value),
        str(Path(__file__).parent / "peers" / "torchvision_loader.py"),
        f"--images={Path(data.root) / data.train_images}",
        f"--annotations={Path(data.root) / data.train_annotations}",
        f"--short_side={max(data.train_short_sides)}",
        f"--long_side={data.long_side}",
        f"--count={_IMAGES.value}",
        f"--batch_size={_BATCH_SIZE.value}",
        f"--workers={len(os.sched_getaffinity(0))}",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ValueError(f"--peer={_PEER.value}: ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _stages(config: Any) -> dict[str, float]:
    """Milliseconds per image of each stage."""
    import numpy as np

    from mrcnn_jax.data.augment import example_generator, random_transform
    from mrcnn_jax.data.joined import JoinedSource
    from mrcnn_jax.data.open_data_source import open_data_source
    from mrcnn_jax.data.pipeline import pixel_rule, plan_batches
    from mrcnn_jax.data.transform import transform_objects, transform_pixels
    from mrcnn_jax.images import decode_image

    source, data = open_data_source(config), config.data
    if isinstance(source, JoinedSource):
        raise ValueError("data.more_train_annotations is set; the stages are timed on one data set")
    order, kept, canvases = plan_batches(source, data, batch_size=1, seed=0, keypoints=config.model.keypoint)
    totals = dict.fromkeys(("read", "decode", "objects", "resize", "masks", "batch"), 0.0)
    count = min(_IMAGES.value, len(kept))
    for step in range(count):
        canvas, indices, numbers = order.batch(step)
        marks = [time.perf_counter()]
        index = int(kept[indices[0]])
        file = source.file(index)
        marks.append(time.perf_counter())
        pixels = decode_image(file, name=f"image {source.ids[index]}")
        marks.append(time.perf_counter())
        objects = source.objects(index)
        marks.append(time.perf_counter())
        generator = example_generator(0, int(numbers[0]))
        transform = random_transform(generator, pixels.shape[:2], canvases[canvas], data)
        shown = transform_pixels(pixels, transform, canvas=canvases[canvas], rule=pixel_rule(data))
        marks.append(time.perf_counter())
        rows = transform_objects(
            objects,
            transform,
            max_objects=data.max_objects,
            mask_grid=data.mask_grid if config.model.mask else None,
            keypoints=config.model.keypoint,
            flip_pairs=source.categories.flip_pairs,
        )
        marks.append(time.perf_counter())
        for value in (shown, *rows.values()):
            np.stack([value])
        marks.append(time.perf_counter())
        for name, start, end in zip(totals, marks, marks[1:], strict=False):
            totals[name] += 1000 * (end - start) / count
    return totals
