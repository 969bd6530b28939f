"""How much a mask loses in its box's grid: ground truth to grids and back, by object size.

    python tests/parity/mask_quality.py --images=COCO/val2017 \
        --annotations=COCO/annotations/instances_val2017.json

Every mask except crowds' is rasterised into its clipped box, as for training, and pasted back at image size
by Detectron2's rule with a threshold of one half. It prints the mean IoU with pycocotools' rasterisation of
the original, and COCO's mask AP of the pasted masks as detections with score 1. The images are not read, but
must exist. Several folders and files, in the same order, are measured together.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.data.coco import CocoImage, Segmentation, read_coco
from mrcnn_jax.data.objects import read_objects, unpack_masks
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.rle import Rle

GRIDS = (28, 56, 112, 224, 0)
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10), "all": (0, 1e10)}


def main() -> None:
    args = parse_args()
    pairs = list(zip(args.images, args.annotations, strict=True))
    datasets = [read_coco("", images=images, annotations=annotations) for images, annotations in pairs]
    truth = read_together(args.annotations)
    images = [image for dataset in datasets for image in dataset.images]
    print("| cells | bytes |" + "".join(f" {kind} {name} |" for kind in ("IoU", "AP") for name in SIZES))
    for grid in args.grids:
        measured = measure(images, truth, grid)
        cells = [f"{measured[kind].get(name, np.nan):.1f}" for kind in ("iou", "ap") for name in SIZES]
        print(f"| {grid} | {-(-(grid**2) // 8)} | {' | '.join(cells)} |", flush=True)
    counts = ", ".join(f"{count} {name}" for name, count in measured["count"].items())
    print(f"{len(images)} images, objects: {counts}")


def read_together(paths: list[str]) -> COCO:
    """The annotation files merged. Raises ValueError if two of them share an image or annotation id."""
    contents = [json.loads(Path(path).read_text()) for path in paths]
    truth = COCO()
    truth.dataset = {"info": {}, "categories": contents[0]["categories"]}
    for section in ("images", "annotations"):
        entries = [entry for content in contents for entry in content[section]]
        if len({entry["id"] for entry in entries}) < len(entries):
            raise ValueError(f"{', '.join(paths)}: {section} have ids in common; measure one file at a time")
        truth.dataset[section] = entries
    quietly(truth.createIndex)
    return truth


def measure(images: list[CocoImage], truth: COCO, grid: int) -> dict[str, Any]:
    """Mean IoU and AP in percent, and the number of objects, by size."""
    found, ious, areas = [], [], []
    for entry, pasted in pasted_masks(images, truth, grid):
        original = truth.annToRLE(entry)
        ious.append(mask_utils.iou([pasted], [original], [0]).item())
        areas.append(entry["area"])
        found.append(
            {key: entry[key] for key in ("image_id", "category_id")} | {"segmentation": pasted, "score": 1.0}
        )
    evaluation = COCOeval(truth, quietly(truth.loadRes, found), "segm")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        quietly(step)
    ious, areas = np.array(ious), np.array(areas)
    in_size = {name: (areas >= low) & (areas < high) for name, (low, high) in SIZES.items()}
    return {
        "iou": {name: 100 * ious[chosen].mean() for name, chosen in in_size.items() if chosen.any()},
        "count": {name: int(chosen.sum()) for name, chosen in in_size.items()},
        "ap": dict(
            zip(("all", "small", "medium", "large"), 100 * evaluation.stats[[0, 3, 4, 5]], strict=True)
        ),
    }


def pasted_masks(images: list[CocoImage], truth: COCO, grid: int) -> Iterator[tuple[dict, dict]]:
    """Each object's entry, except crowds', and its mask after the grid, as compressed RLE.

    Grid 0 means no grid: the image pixels whose centre is inside the polygon.
    """
    for image in images:
        size = image.height, image.width
        if not grid:
            for item in image.annotations:
                if not item.crowd and item.segmentation is not None:
                    yield truth.anns[item.id], dict(at_pixels(item.segmentation, size).compressed())
            continue
        objects = read_objects(image, mask_grid=grid, num_keypoints=0)
        for row, mask in enumerate(unpack_masks(objects.masks, grid)):
            if not objects.crowd[row]:
                crop = paste_mask(mask.astype(np.float32), objects.boxes[row], size)
                rle = Rle.from_crop(crop.mask, top=crop.top, left=crop.left, image_size=size)
                yield truth.anns[int(objects.ids[row])], dict(rle.compressed())


def at_pixels(segmentation: Segmentation, size: tuple[int, int]) -> Rle:
    if isinstance(segmentation, Rle):
        return segmentation
    side = max(size)
    mask = rasterise(segmentation, (0.0, 0.0, float(side), float(side)), side)
    return Rle.from_bitmap(mask[: size[0], : size[1]])


def quietly(function: Any, *arguments: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="folder of each annotation file's images")
    parser.add_argument("--annotations", nargs="+", required=True, help="instances_*.json")
    parser.add_argument("--grids", nargs="+", type=int, default=GRIDS, help="cells per axis; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
