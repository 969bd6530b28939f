"""Images and objects from COCO files, read as in torchvision's own training scripts."""

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision_inference import Arrays
from torchvision_training import Batch, Example

BATCHES, BATCH_SIZE = 2, 2


def read_image(path: Path) -> np.ndarray:
    """RGB pixels ``[H W 3]`` uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def choose_images(folder: Path, count: int) -> list[Path]:
    """The first images of a folder, one of each shape before a second of any shape."""
    shapes: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            shapes.setdefault(image.size, []).append(path)
    rounds = itertools.zip_longest(*shapes.values())
    return [path for paths in rounds for path in paths if path is not None][:count]


def read_batches(args: argparse.Namespace, *, keypoints: bool) -> tuple[list[Batch], Arrays]:
    """The first batches of images that torchvision pads to the same size, and their ids and names as arrays.

    Images without objects or with crowds are left out: torchvision skips crowds, unlike this project.
    """
    file = args.keypoints if keypoints else args.annotations
    if file is None:
        raise SystemExit(f"--train of {args.model} needs --{'keypoints' if keypoints else 'annotations'}")
    content = json.loads(file.read_text())
    objects: dict[int, list[dict]] = {}
    for item in content["annotations"]:
        objects.setdefault(item["image_id"], []).append(item)
    groups: dict[tuple[int, ...], list[dict]] = {}
    for image in sorted(content["images"], key=lambda image: image["id"]):
        items = objects.get(image["id"], [])
        if not items or any(item["iscrowd"] for item in items):
            continue
        if keypoints and not any(item["num_keypoints"] for item in items):
            continue
        groups.setdefault(_padded_size(image, args.short_side, args.long_side), []).append(image)
    images = max(groups.values(), key=len)[: BATCHES * BATCH_SIZE]
    if len(images) < BATCHES * BATCH_SIZE:
        raise SystemExit(f"{len(images)} images of one size have objects and no crowds; 4 are needed")

    frames = np.load(args.box_frames) if args.box_frames else None
    examples, arrays = [], {}
    for position, image in enumerate(images):
        example, ids = _read_example(image, objects[image["id"]], args.images, frames, keypoints)
        examples.append(example)
        if position < BATCH_SIZE:
            arrays[f"ground_truth/{position}/ids"] = np.array(ids)
    grid = BATCHES, BATCH_SIZE
    arrays["batches"] = np.reshape([image["file_name"] for image in images], grid)
    arrays["batch_ids"] = np.reshape([image["id"] for image in images], grid)
    return [examples[start : start + BATCH_SIZE] for start in range(0, len(examples), BATCH_SIZE)], arrays


def _padded_size(image: dict, short_side: int, long_side: int) -> tuple[int, ...]:
    sides = image["height"], image["width"]
    scale = min(short_side / min(sides), long_side / max(sides))
    return tuple(math.ceil(math.floor(side * scale) / 32) * 32 for side in sides)


def _read_example(
    image: dict, items: list[dict], folder: Path, frames: np.lib.npyio.NpzFile | None, keypoints: bool
) -> tuple[Example, list[int]]:
    """An image with its objects, from large to small, and their annotation ids."""
    width, height = image["width"], image["height"]
    boxed = []
    for item in items:
        x, y, w, h = item["bbox"]
        box = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        if min(box[2] - box[0], box[3] - box[1]) >= 1e-3:
            boxed.append((box, item))
    boxed.sort(key=lambda pair: -(pair[0][2] - pair[0][0]) * (pair[0][3] - pair[0][1]))
    items = [item for _, item in boxed]
    ids = [item["id"] for item in items]
    example = Example(
        image=read_image(folder / image["file_name"]),
        boxes=np.array([box for box, _ in boxed], np.float32),
        labels=np.array([item["category_id"] for item in items]),
        bitmaps=None if keypoints else np.stack([_bitmap(i["segmentation"], height, width) for i in items]),
        box_frames=np.stack([frames[str(i)] for i in ids]) if frames is not None and not keypoints else None,
        keypoints=np.array([i["keypoints"] for i in items], np.float32).reshape(len(items), -1, 3)
        if keypoints
        else None,
    )
    return example, ids


def _bitmap(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    """Polygons rasterised by COCO's own tools."""
    from pycocotools import mask

    return mask.decode(mask.merge(mask.frPyObjects(polygons, height, width)))
