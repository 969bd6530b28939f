"""Data distillation (arXiv 1712.04440): what a model found in unlabelled images becomes their annotations.

A model is then trained on these together with the images that people have labelled (appendix B of the
paper).
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.categories import read_categories
from mrcnn_jax.image_names import image_names
from mrcnn_jax.images import Size
from mrcnn_jax.json_files import read_json
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

_SPACE = re.compile(r"[ \t\r\n]*")
_VISIBLE = 2  # of a keypoint


@dataclass(frozen=True)
class Selection:
    """The objects of a category."""

    name: str
    found: int
    wanted: int | None  # for as many per image as people have labelled; None: by a fixed score
    threshold: float | None  # the lowest score that is kept; None: none are
    kept: int


@dataclass(frozen=True)
class Distilled:
    """The result of ``distill``."""

    content: dict[str, Any]  # a COCO file
    selections: tuple[Selection, ...]  # of each category
    left_out: Counter[str]  # objects above the threshold that cannot be trained on, as a noun and the reason


def distill(
    results: Path, images: Path, *, like: Path | None = None, min_score: float | None = None
) -> Distilled:
    """The best of the objects in a COCO results list, as the annotations of a COCO file.

    Args:
        results: What a model found, such as the ``detections.json`` of ``mrcnn-jax predict``.
        images: A file with the ``images`` that it was given, such as COCO's ``image_info_*.json``. All are in
            the result, also those without objects.
        like: A COCO file of labelled images. The result has its categories, those of ``images`` if None.
        min_score: The lowest score of an object that is kept. If None, it is chosen for each category, such
            that an image has as many objects as one of ``like`` on average, crowds not counted.

    All keypoints of an object count as visible. Raises ValueError, naming file and entry, for files that
    violate the formats and for objects of unknown images or categories, and if neither ``like`` nor
    ``min_score`` is given.
    """
    if min_score is None and like is None:
        raise ValueError("give --like, a file of labelled images, or --min_score")
    content = _read_object(images)
    sizes, entries = _read_images(content, images)
    labelled = None if like is None else _read_object(like)
    where = images if like is None else like
    category_entries, categories = _read_categories(content if labelled is None else labelled, where)
    text = _read_text(results)
    scores: dict[int, list[float]] = {category: [] for category in categories.ids}
    for _, entry in _checked(text, results, sizes, categories, where):
        scores[entry["category_id"]].append(entry["score"])

    wanted: dict[int, int] = {}
    if min_score is None and labelled is not None:
        wanted = _wanted(labelled, where, categories, images=len(sizes))
    thresholds = {key: _threshold(found, wanted.get(key), min_score) for key, found in scores.items()}

    annotations: list[dict[str, Any]] = []
    left_out = Counter[str]()
    for index, entry in _checked(text, results, sizes, categories, where):
        threshold = thresholds[entry["category_id"]]
        if threshold is None or entry["score"] < threshold:
            continue
        try:
            annotation, reason = _annotation(entry, sizes[entry["image_id"]], categories, where)
        except ValueError as error:
            raise ValueError(f"{results}: entry {index}: {error}") from error
        if annotation is None:
            left_out[reason] += 1
        else:
            annotations.append({"id": len(annotations) + 1} | annotation)
    kept = Counter(annotation["category_id"] for annotation in annotations)
    selections = [
        Selection(name, len(scores[key]), wanted.get(key), thresholds[key], kept[key])
        for key, name in zip(categories.ids, categories.names, strict=True)
    ]
    made = {"images": entries, "annotations": annotations, "categories": category_entries}
    return Distilled(made, tuple(selections), left_out)


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path, object_hook=coco_fields.drop_segmentation)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'images'")
    return content


def _read_images(content: dict, path: Path) -> tuple[dict[int, Size], list[dict[str, Any]]]:
    """The size of each image by its id, and the images as entries of a COCO file."""
    sizes: dict[int, Size] = {}
    entries = []
    for index, entry in enumerate(fields.entries(content, "images", str(path))):
        try:
            key = fields.integer(entry, "id")
            size = coco_fields.read_side(entry, "height"), coco_fields.read_side(entry, "width")
            name = image_names(entry)[0]
        except ValueError as error:
            raise ValueError(f"{path}: images[{index}]: {error}") from error
        if key in sizes:
            raise ValueError(f"{path}: images[{index}]: duplicate id {key}")
        sizes[key] = size
        entries.append({"id": key, "file_name": name, "height": size[0], "width": size[1]})
    return sizes, entries


def _read_categories(content: dict, path: Path) -> tuple[list[dict], Categories]:
    entries = fields.entries(content, "categories", str(path))
    categories = read_categories(
        entries,
        str(path),
        keypoint_entries=entries,
        keypoint_where=str(path),
        keypoint_rule="strict",
        findings=[],
    )
    return entries, categories


def _wanted(labelled: dict, path: Path, categories: Categories, *, images: int) -> dict[int, int]:
    """How many objects of each category ``images`` images have, if they are like the labelled ones."""
    count = len(fields.entries(labelled, "images", str(path)))
    if not count:
        raise ValueError(f"{path}: has no images")
    objects = Counter[int]()
    for index, entry in enumerate(fields.entries(labelled, "annotations", str(path))):
        try:
            category = fields.integer(entry, "category_id")
            objects[category] += not coco_fields.read_crowd(entry)
        except ValueError as error:
            raise ValueError(f"{path}: annotations[{index}]: {error}") from error
    return {category: round(objects[category] / count * images) for category in categories.ids}


def _threshold(scores: list[float], wanted: int | None, min_score: float | None) -> float | None:
    """The lowest score that is kept; None if no object is."""
    if wanted is None:
        return min_score
    if not wanted or not scores:
        return None
    return float(np.sort(scores)[-min(wanted, len(scores))])


def _read_text(path: Path) -> str:
    """The text of a results list, which is decoded entry by entry: as objects it takes far more memory."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text: {error}") from error


def _entries(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The entries of a JSON list and their indices."""
    decoder = json.JSONDecoder()

    def after_space(place: int) -> int:
        match = _SPACE.match(text, place)
        return match.end() if match else place

    place = after_space(0)
    if text[place : place + 1] != "[":
        raise ValueError(f"{path}: must be a COCO results list: [{{...}}, ...]")
    place, index = after_space(place + 1), 0
    while index or text[place : place + 1] != "]":
        try:
            entry, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: entry {index}: not valid JSON: {error}") from error
        yield index, entry
        place, index = after_space(place), index + 1
        if text[place : place + 1] == "]":
            return
        if text[place : place + 1] != ",":
            raise ValueError(f"{path}: the list must go on with ',' or ']' after entry {index - 1}")
        place = after_space(place + 1)


def _checked(
    text: str, path: Path, sizes: dict[int, Size], categories: Categories, where: Path
) -> Iterator[tuple[int, dict]]:
    """The entries with a known image and category, and a score; raises ValueError for any others."""
    for index, entry in _entries(text, path):
        try:
            if not isinstance(entry, dict):
                raise fields.error("", "it", "a JSON object", entry)
            entry["image_id"] = coco_fields.read_image_id(entry, sizes)
            entry["category_id"] = category = fields.integer(entry, "category_id")
            if category not in categories.ids:
                raise ValueError(f"category_id {category} is not among those of {where}")
            if not fields.is_numbers([entry.get("score")]):
                raise fields.error("", "score", "a number", entry.get("score"))
        except ValueError as error:
            raise ValueError(f"{path}: entry {index}: {error}") from error
        yield index, entry


def _annotation(
    entry: dict, size: Size, categories: Categories, where: Path
) -> tuple[dict[str, Any] | None, str]:
    """An annotation without its id, or None and why the object cannot be trained on."""
    category = entry["category_id"]
    x1, y1, x2, y2 = coco_fields.read_box(entry)
    if x1 == x2 or y1 == y2:
        return None, "objects whose box has no area"
    annotation = {
        "image_id": entry["image_id"],
        "category_id": category,
        "bbox": entry["bbox"],
        "area": round((x2 - x1) * (y2 - y1), 3),
        "iscrowd": 0,
        "score": entry["score"],
        "segmentation": [],
    }
    if entry.get("segmentation") is not None:
        mask = coco_fields.read_segmentation(entry["segmentation"], size)
        if not isinstance(mask, Rle):
            raise fields.error("", "segmentation", "an RLE", entry["segmentation"])
        if not (area := int(mask.counts[1::2].sum())):
            return None, "objects whose mask has no pixels"
        annotation |= {"area": area, "segmentation": entry["segmentation"]}
    if entry.get("keypoints"):
        count = len(categories.keypoint_names)
        if categories.ids.index(category) + 1 not in categories.keypoint_labels:
            raise ValueError(f"has keypoints, but category {category} of {where} defines none")
        points = entry["keypoints"]
        if not fields.is_numbers(points) or len(points) != 3 * count:
            raise fields.error("", "keypoints", f"[x, y, score] for each of the {count} keypoints", points)
        visible = [number for i in range(0, len(points), 3) for number in (*points[i : i + 2], _VISIBLE)]
        annotation |= {"keypoints": visible, "num_keypoints": count}
    return annotation, ""
