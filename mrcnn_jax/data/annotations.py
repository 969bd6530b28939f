"""Stores the annotations of a dataset's images next to its records, exactly, for evaluation.

A file of JSON lines: line i is the list of the annotations of image i, each with the fields of
``CocoAnnotation`` and COCO's polygons or compressed RLE.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.coco import CocoAnnotation, CocoImage
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories


def write_annotations(path: Path, images: Iterable[CocoImage]) -> None:
    """Writes the annotations of the images, line by line."""
    with path.open("w", encoding="utf-8") as file:
        for image in images:
            file.write(f"{json.dumps([_to_json(item) for item in image.annotations])}\n")


def read_annotations(
    path: Path, *, sizes: np.ndarray, categories: Categories
) -> list[tuple[CocoAnnotation, ...]]:
    """The annotations of each image, equal bit by bit to those that were written.

    ``sizes`` ``[N 2]`` are the heights and widths of the images. Raises ValueError, naming the file, if it is
    missing, as in records of the first versions, or damaged; and, with the line and the annotation, if an RLE
    does not have its image's size, or a label or another value is not possible.
    """
    shapes = [(height, width) for height, width in sizes.tolist()]
    try:
        if path.exists() and not path.is_file():  # a device would never end
            raise ValueError("not a regular file")
        with path.open(encoding="utf-8") as file:
            images = []
            for number, line in enumerate(file):
                entries = json.loads(line, object_hook=coco_fields.pack_polygons)
                # Of a line too many, the size is unknown; the count is then an error anyway.
                size = shapes[number] if number < len(shapes) else None
                images.append(tuple(_from_json(entry, size, categories, number + 1) for entry in entries))
        if len(images) != len(shapes):
            raise ValueError(f"{len(images)} lines for {len(shapes)} images")
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"damaged: {error}"
        raise ValueError(
            f"{path}: {reason}; to evaluate on these records, or to train on their whole masks, remake them "
            "with mrcnn-jax prepare"
        ) from error
    return images


def _to_json(item: CocoAnnotation) -> dict[str, Any]:
    segmentation: Any = item.segmentation
    if isinstance(segmentation, Rle):
        segmentation = segmentation.compressed()
    elif segmentation is not None:
        segmentation = [polygon.ravel().tolist() for polygon in segmentation]
    keypoints = None if item.keypoints is None else item.keypoints.tolist()
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return values | {"segmentation": segmentation, "keypoints": keypoints}


def _from_json(entry: dict[str, Any], size: Size | None, categories: Categories, line: int) -> CocoAnnotation:
    """The annotation, perhaps a stranger's; raises ValueError unless it is such as ``_to_json`` writes."""
    if entry.keys() != (names := {field.name for field in dataclasses.fields(CocoAnnotation)}):
        raise fields.error(f"line {line}", "the fields of an annotation", str(sorted(names)), sorted(entry))
    label, box, area, keypoints = (entry[name] for name in ("label", "box", "area", "keypoints"))
    points = len(categories.keypoint_names)
    rules = {
        "id": ("an integer", type(entry["id"]) is int),
        "label": (f"from 1 to {len(categories)}", type(label) is int and 1 <= label <= len(categories)),
        "box": ("four finite numbers", _is_finite(box) and len(box) == 4),
        "crowd": ("true or false", type(entry["crowd"]) is bool),
        "area": ("null or a finite number", area is None or _is_finite([area])),
        "keypoints": (
            f"null or [x, y, visibility] for each of {points}",
            keypoints is None
            or (
                len(keypoints) == points and all(_is_finite(point) and len(point) == 3 for point in keypoints)
            ),
        ),
    }
    for name, (rule, holds) in rules.items():
        if not holds:
            raise fields.error(f"line {line}, annotation {entry['id']!r}", name, rule, entry[name])
    changed = {
        "box": tuple(box),
        "segmentation": coco_fields.read_segmentation(entry["segmentation"], size),
        "keypoints": None if keypoints is None else np.array(keypoints, np.float32),
    }
    return CocoAnnotation(**entry | changed)


def _is_finite(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) in (int, float) and math.isfinite(x) for x in value)
