"""Stores the annotations of a dataset's images next to its records, exactly, for evaluation.

A file of JSON lines: line i is the list of the annotations of image i, each with the fields of
``CocoAnnotation`` and COCO's polygons or compressed RLE.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.data import coco_fields
from mrcnn_jax.data.coco import CocoAnnotation, CocoImage
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle


def write_annotations(path: Path, images: Iterable[CocoImage]) -> None:
    """Writes the annotations of the images, line by line."""
    with path.open("w", encoding="utf-8") as file:
        for image in images:
            file.write(f"{json.dumps([_to_json(item) for item in image.annotations])}\n")


def read_annotations(path: Path, *, sizes: np.ndarray) -> list[tuple[CocoAnnotation, ...]]:
    """The annotations of each image, equal bit by bit to those that were written.

    ``sizes`` ``[N 2]`` are the heights and widths of the images. Raises ValueError, naming the file, if it is
    missing, as in records of the first versions, or damaged, or if an RLE does not have its image's size.
    """
    shapes = [(height, width) for height, width in sizes.tolist()]
    try:
        with path.open(encoding="utf-8") as file:
            lines = (json.loads(line, object_hook=coco_fields.pack_polygons) for line in file)
            # Of a line too many, the size is unknown; the count is then an error anyway.
            images = [
                tuple(_from_json(entry, shapes[i] if i < len(shapes) else None) for entry in line)
                for i, line in enumerate(lines)
            ]
        if len(images) != len(shapes):
            raise ValueError(f"{len(images)} lines for {len(shapes)} images")
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"damaged: {error}"
        raise ValueError(
            f"{path}: {reason}; to evaluate on these records, remake them with mrcnn-jax prepare"
        ) from error
    return images


def _to_json(item: CocoAnnotation) -> dict[str, Any]:
    segmentation: Any = item.segmentation
    if isinstance(segmentation, Rle):
        segmentation = segmentation.compressed()
    elif segmentation is not None:
        segmentation = [polygon.ravel().tolist() for polygon in segmentation]
    keypoints = None if item.keypoints is None else item.keypoints.tolist()
    fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return fields | {"segmentation": segmentation, "keypoints": keypoints}


def _from_json(entry: dict[str, Any], size: Size | None) -> CocoAnnotation:
    keypoints = entry["keypoints"]
    changed = {
        "box": tuple(entry["box"]),
        "segmentation": coco_fields.read_segmentation(entry["segmentation"], size),
        "keypoints": None if keypoints is None else np.array(keypoints, np.float32),
    }
    return CocoAnnotation(**entry | changed)
