"""Writes YOLO's annotations: ``labels/NAME.txt`` for each image, with a line per object, and ``data.yaml``.

Formats: https://docs.ultralytics.com/datasets/segment/ and .../pose/. Coordinates are shares of the image's
sides.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mrcnn_jax.images import Size
from mrcnn_jax.runs.categories import Categories, keypoint_flip_order
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.polygons import joined, outlines


def write_yolo(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes the files. The images have to be beside ``labels/``, in ``images/``, such as by a link.

    An object is one polygon: its parts and holes are ``joined``. Without a mask it is a box. If a category
    has keypoints, the data set is one of poses, which have no place for masks: every object is a box and
    all of the keypoints. The format has no scores.
    """
    names = found.categories.keypoint_names
    for image in found:
        with folder.open(f"labels/{Path(image.name).with_suffix('.txt').as_posix()}") as file:
            for item in image.objects:
                values = _pose(item, image.size, names) if names else _segment(item, image.size, tolerance)
                file.write(" ".join([str(item.label - 1), *values]) + "\n")
        if names and (masks := sum(item.mask is not None for item in image.objects)):
            found.left_out["masks: YOLO's poses have no place for them; --nokeypoints keeps them"] += masks
    content: dict[str, Any] = {"train": "images", "val": "images"}
    content |= {"names": dict(enumerate(found.categories.names)), **_keypoint_fields(found.categories)}
    with folder.open("data.yaml") as file:
        yaml.safe_dump(content, file, allow_unicode=True, sort_keys=False)


def _keypoint_fields(categories: Categories) -> dict[str, Any]:
    """What ``data.yaml`` says about keypoints. Without ``flip_idx``, Ultralytics does not mirror images."""
    names = categories.keypoint_names
    if not names:
        return {}
    pairs = categories.flip_pairs
    mirrored = {"flip_idx": keypoint_flip_order(len(names), pairs).tolist()} if pairs else {}
    named = {label - 1: list(names) for label in categories.keypoint_labels}
    return {"kpt_shape": [len(names), 3], **mirrored, "kpt_names": named}


def _segment(item: FoundObject, size: Size, tolerance: float) -> list[str]:
    if item.mask is None:
        return _box(item, size)
    height, width = size
    return _written((joined(outlines(item.mask, tolerance)) / (width, height)).ravel().tolist())


def _pose(item: FoundObject, size: Size, names: Sequence[str]) -> list[str]:
    height, width = size
    words = _box(item, size)
    for name in names:
        x, y = item.keypoints.get(name, (0.0, 0.0))
        words += [*_written([x / width, y / height]), "2" if name in item.keypoints else "0"]
    return words


def _box(item: FoundObject, size: Size) -> list[str]:
    height, width = size
    x1, y1, x2, y2 = item.box
    return _written([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height])


def _written(values: Sequence[float]) -> list[str]:
    return [f"{value:.6f}" for value in values]
