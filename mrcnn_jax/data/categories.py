"""Reads labels and keypoints from the ``categories`` section of a COCO file."""

import re
from pathlib import Path
from typing import Any

from mrcnn_jax.data import fields
from mrcnn_jax.json_files import read_json
from mrcnn_jax.types import Categories

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
# https://cocodataset.org/#keypoints-eval, in the order above.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip


def read_categories_file(path: Path) -> Categories:
    """The categories of a COCO-format file, with the keypoints it defines for them.

    Raises OSError if the file cannot be read, and ValueError, naming it, if it violates the format.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'categories'")
    entries = fields.entries(content, "categories", str(path))
    return read_categories(entries, str(path), keypoint_entries=entries, keypoint_where=str(path))


def read_categories(
    entries: list[dict], where: str, *, keypoint_entries: list[dict], keypoint_where: str
) -> Categories:
    """The categories as labels 1 to K in ascending id order, with the keypoints from ``keypoint_entries``.

    ``keypoint_entries`` is the same list, or the categories of a ``person_keypoints_*.json``. An entry with a
    ``keypoints`` field gives its category keypoints; all such entries must agree. Raises ValueError, prefixed
    with ``where`` or ``keypoint_where``, for entries that violate the format.
    """
    if not entries:
        raise ValueError(f"{where}: the section 'categories' is empty")
    names: dict[int, str] = {}
    for entry in entries:
        category = fields.integer(entry, "id", f"{where}: a category")
        if category in names:
            raise ValueError(f"{where}: duplicate category id {category}")
        names[category] = fields.text(entry, "name", f"{where}: category {category}")
    ids = tuple(sorted(names))

    described: dict[int, dict[str, Any]] = {}
    for entry in keypoint_entries:
        if not entry.get("keypoints"):
            continue
        category = fields.integer(entry, "id", f"{keypoint_where}: a category")
        if category not in names:
            raise ValueError(f"{keypoint_where}: category {category} is not among the categories of {where}")
        described[category] = _keypoints(entry, f"{keypoint_where}: category {category}")
    if len({tuple(sorted(keypoints.items())) for keypoints in described.values()}) > 1:
        raise ValueError(
            f"{keypoint_where}: categories {sorted(described)} differ in keypoints, skeleton or sigmas"
        )
    keypoint_labels = tuple(label for label, category in enumerate(ids, start=1) if category in described)
    keypoints = described[ids[keypoint_labels[0] - 1]] if keypoint_labels else {}
    return Categories(
        ids=ids,
        names=tuple(names[category] for category in ids),
        keypoint_labels=keypoint_labels,
        **keypoints,
    )


def _keypoints(entry: dict, where: str) -> dict[str, Any]:
    """The keypoint fields of ``Categories``, read from one category entry."""
    names = entry["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise fields.error(where, "keypoints", "a list of names", names)
    if len(set(names)) < len(names):
        raise fields.error(where, "keypoints", "a list of distinct names", names)
    skeleton = entry.get("skeleton") or []
    if not isinstance(skeleton, list):
        raise fields.error(where, "skeleton", "a list of pairs", skeleton)
    for pair in skeleton:
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(point) is int and 1 <= point <= len(names) for point in pair)
        ):
            raise fields.error(where, "skeleton", f"pairs of keypoint numbers from 1 to {len(names)}", pair)
    sigmas = entry.get("sigmas")
    if sigmas is not None and not (
        fields.is_numbers(sigmas) and len(sigmas) == len(names) and all(sigma > 0 for sigma in sigmas)
    ):
        raise fields.error(where, "sigmas", f"{len(names)} positive numbers, one per keypoint", sigmas)
    if sigmas is None:
        sigmas = COCO_SIGMAS if tuple(names) == COCO_KEYPOINTS else ()
    return {
        "keypoint_names": tuple(names),
        "skeleton": tuple((a - 1, b - 1) for a, b in skeleton),
        "flip_pairs": flip_pairs(tuple(names)),
        "sigmas": tuple(float(sigma) for sigma in sigmas),
    }


def flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The pairs of keypoint indices to swap when an image is flipped horizontally.

    The names of a pair differ only in the word left or right: ``left_eye`` and ``right_eye``.
    """
    index = {name: i for i, name in enumerate(names)}
    pairs = []
    for i, name in enumerate(names):
        mirrored = re.sub(r"(?<![a-z])left(?![a-z])", "right", name)
        if mirrored != name and mirrored in index:
            pairs.append((i, index[mirrored]))
    return tuple(pairs)
