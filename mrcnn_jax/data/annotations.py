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
from mrcnn_jax.rle import Rle


def write_annotations(path: Path, images: Iterable[CocoImage]) -> None:
    """Writes the annotations of the images, line by line."""
    with path.open("w", encoding="utf-8") as file:
        for image in images:
            file.write(f"{json.dumps([_to_json(item) for item in image.annotations])}\n")


def read_annotations(path: Path, *, count: int) -> list[tuple[CocoAnnotation, ...]]:
    """The annotations of each of ``count`` images, equal bit by bit to those that were written.

    Raises ValueError, naming the file, if it is damaged or missing, as in records of the first versions.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = (json.loads(line, object_hook=coco_fields.pack_polygons) for line in file)
            images = [tuple(map(_from_json, line)) for line in lines]
        if len(images) != count:
            raise ValueError(f"{len(images)} lines for {count} images")
    except (OSError, ValueError, TypeError, KeyError) as error:
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


def _from_json(entry: dict[str, Any]) -> CocoAnnotation:
    keypoints = entry["keypoints"]
    changed = {
        "box": tuple(entry["box"]),
        "segmentation": coco_fields.read_segmentation(entry["segmentation"], None),
        "keypoints": None if keypoints is None else np.array(keypoints, np.float32),
    }
    return CocoAnnotation(**entry | changed)
