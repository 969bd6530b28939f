"""Pictures of an image's objects beside what was found in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.images import Size
from mrcnn_jax.inference.draw import COLORS, draw
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

Picture = UInt8[np.ndarray, "_ _ 3"]

_GAP = 8  # pixels between two pictures
_PAPER = 255


def as_result(
    entries: Sequence[dict[str, Any]], size: Size, categories: Categories, *, masks: bool, keypoints: bool
) -> Result:
    """COCO entries of an image of ``size``, objects or detections, as a ``Result``, which can be drawn.

    Objects have a score of 1. Keypoints that are not labelled are NaN, so that they are not drawn.
    """
    count, points = len(entries), len(categories.keypoint_names)
    boxes = np.array([entry["bbox"] for entry in entries], np.float32).reshape(count, 4)
    boxes[:, 2:] += boxes[:, :2]
    height, width = size
    found = None
    if keypoints and points:
        found = np.full((count, points, 3), np.nan, np.float32)
        for row, entry in zip(found, entries, strict=True):
            if entry.get("keypoints"):
                row[:] = np.reshape(entry["keypoints"], (points, 3))
                row[row[:, 2] == 0] = np.nan
    return Result(
        boxes=np.clip(boxes, 0, np.array([width, height] * 2, np.float32)),
        scores=np.array([entry.get("score", 1) for entry in entries], np.float32),
        labels=np.array([categories.ids.index(entry["category_id"]) + 1 for entry in entries], np.int32),
        image_size=(height, width),
        categories=categories,
        crops=tuple(_crop(entry["segmentation"]) for entry in entries) if masks else None,
        keypoints=found,
    )


def objects_of(source: DataSource, index: int) -> list[dict[str, Any]]:
    """The COCO entries of an image's annotations, in order, with masks of the whole image."""
    truth = ground_truth(source)
    found = truth.load_anns(truth.get_ann_ids(img_ids=[int(source.ids[index])]))
    return sorted(found, key=lambda entry: entry["id"])


def annotated(source: DataSource, index: int, *, masks: bool, keypoints: bool) -> Result:
    """The annotations of an image as a ``Result``, crowds included."""
    height, width = source.sizes[index].tolist()
    entries = objects_of(source, index)
    return as_result(entries, (height, width), source.categories, masks=masks, keypoints=keypoints)


def side_by_side(image: Picture, objects: Result, found: Result) -> Picture:
    """The picture of what is annotated, left, beside that of what was found, each as from ``draw``.

    A category has the same colour in both.
    """
    pictures = [
        draw(
            image,
            result,
            texts=result.names if result is objects else None,
            colors=[COLORS[(label - 1) % len(COLORS)] for label in result.labels.tolist()],
        )
        for result in (objects, found)
    ]
    gap = np.full((len(pictures[0]), _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([pictures[0], gap, pictures[1]], axis=1)


def _crop(rle: dict[str, Any]) -> PastedMask:
    mask, top, left = Rle.from_json(rle).to_crop()
    return PastedMask(top=top, left=left, mask=mask)
