"""The names and places of the keypoints of COCO results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mrcnn_jax.data import fields
from mrcnn_jax.data.categories import read_categories
from mrcnn_jax.data.image_list import ImageList
from mrcnn_jax.images import Size
from mrcnn_jax.runs.categories import Categories

_SLACK = 0.5  # pixels by which a keypoint may leave the image: files may count from the centre of a pixel
_VISIBLE = 2  # COCO's visibility of a keypoint that is there and can be seen

Keypoints = Mapping[str, tuple[float, float]]  # x y in pixels, inside the image, by name


def count_keypoints(entry: dict[str, Any]) -> int:
    """How many keypoints an entry of the results has; 0 also if all of its numbers are 0."""
    value = entry.get("keypoints")
    if not value:
        return 0
    if not fields.is_numbers(value) or len(value) % 3:
        raise fields.error("", "keypoints", "[x, y, score] for each keypoint", value)
    return len(value) // 3 if any(value) else 0


def with_keypoints(categories: Categories, counts: Mapping[int, int], listed: ImageList | None) -> Categories:
    """The categories with those keypoints that their objects have: ``counts``, by category id.

    Their names are those of ``listed``. If it has none, or there is no such file, they are keypoint_1 and so
    on. Raises ValueError if the categories differ in the number of keypoints, if that is not the number of
    names, or if ``listed`` violates the format.
    """
    counts = {category: count for category, count in counts.items() if category in categories.ids}
    named = Categories(ids=(), names=())
    if counts and listed is not None and listed.category_entries:
        where = str(listed.path)
        named = read_categories(
            listed.category_entries,
            where,
            keypoint_entries=listed.category_entries,
            keypoint_where=where,
            keypoint_rule="strict",
            findings=[],
        )
    if names := named.keypoint_names:
        with_names = {named.ids[label - 1] for label in named.keypoint_labels}
        counts = {category: count for category, count in counts.items() if category in with_names}
    if not counts:
        return categories
    if len(set(counts.values())) > 1:
        raise ValueError(f"category ids differ in their number of keypoints: {dict(sorted(counts.items()))}")
    count = next(iter(counts.values()))
    if names and len(names) != count:
        raise ValueError(f"objects have {count} keypoints, but --annotations names {len(names)}")
    return dataclasses.replace(
        categories,
        keypoint_labels=tuple(categories.ids.index(category) + 1 for category in sorted(counts)),
        keypoint_names=names or tuple(f"keypoint_{number}" for number in range(1, count + 1)),
        skeleton=named.skeleton,
        flip_pairs=named.flip_pairs,
    )


def visible_keypoints(value: Sequence[float], names: Sequence[str], size: Size) -> Keypoints:
    """The keypoints that are there: in the image, and with a third number other than 0.

    That number is a score or, by COCO's rule for results, 1; COCO shows no keypoint of which it is 0. A
    place outside the image by half a pixel or less is moved into it.
    """
    height, width = size
    found = {}
    for name, x, y, score in zip(names, value[::3], value[1::3], value[2::3], strict=True):
        is_inside = -_SLACK <= x <= width + _SLACK and -_SLACK <= y <= height + _SLACK
        if score and is_inside:
            found[name] = min(max(float(x), 0.0), float(width)), min(max(float(y), 0.0), float(height))
    return found


def to_coco(keypoints: Keypoints, names: Sequence[str]) -> list[float]:
    """COCO's list: x, y, visibility of each of the ``names``: 2, or three zeros for one that is not there."""
    return [
        number
        for name in names
        for number in ((*keypoints[name], _VISIBLE) if name in keypoints else (0, 0, 0))
    ]
