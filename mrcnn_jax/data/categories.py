"""Reads labels and keypoints from the ``categories`` section of a COCO file."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

from mrcnn_jax.data import fields
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.json_files import read_json
from mrcnn_jax.runs.categories import Categories

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


# What becomes of keypoints: they are not read, or dropped with a warning if malformed, or then an error.
KeypointRule = Literal["skip", "lenient", "strict"]


def read_categories_file(path: Path, *, keypoint_rule: KeypointRule = "strict") -> Categories:
    """The categories of a COCO-format file, with the keypoints it defines for them.

    Raises OSError if the file cannot be read, and ValueError, naming it, if it violates the format.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'categories'")
    entries = fields.entries(content, "categories", str(path))
    return read_categories(
        entries,
        str(path),
        keypoint_entries=entries,
        keypoint_where=str(path),
        keypoint_rule=keypoint_rule,
        findings=[],
    )


def read_categories(
    entries: list[dict],
    where: str,
    *,
    keypoint_entries: list[dict],
    keypoint_where: str,
    keypoint_rule: KeypointRule,
    findings: list[Finding],
) -> Categories:
    """The categories as labels 1 to K in ascending id order, with the keypoints from ``keypoint_entries``.

    ``keypoint_entries`` is the same list, or the categories of a ``person_keypoints_*.json``. An entry with a
    ``keypoints`` field gives its category keypoints; all such entries must name the same. Warnings are
    appended to ``findings``: about skeletons that are malformed or differ, which are dropped, since they only
    serve to draw; about unpaired surrogates in names, which become U+FFFD, since UTF-8 cannot represent them;
    and, if ``keypoint_rule`` is "lenient", about keypoints that violate the format, which are dropped.

    Raises ValueError, prefixed with ``where`` or ``keypoint_where``, for entries that violate the format.
    """
    if not entries:
        raise ValueError(f"{where}: the section 'categories' is empty")
    names: dict[int, str] = {}
    for entry in entries:
        category = fields.integer(entry, "id", f"{where}: a category")
        if category in names:
            raise ValueError(f"{where}: duplicate category id {category}")
        name = fields.text(entry, "name", f"{where}: category {category}")
        names[category] = _encodable(name)
        if names[category] != name:
            rule = f"category {category}: unpaired surrogates in the name {name!a} became U+FFFD"
            findings.append(Finding(where, None, None, rule, True))
    categories = Categories(ids=tuple(sorted(names)), names=tuple(names[key] for key in sorted(names)))
    if keypoint_rule == "skip":
        return categories
    try:
        return _with_keypoints(categories, where, keypoint_entries, keypoint_where, findings)
    except ValueError as error:
        if keypoint_rule == "strict":
            raise
        rule = f"{str(error).removeprefix(f'{keypoint_where}: ')}; keypoints are not read"
        findings.append(Finding(keypoint_where, None, None, rule, True))
        return categories


def _with_keypoints(
    categories: Categories, where: str, entries: list[dict], keypoint_where: str, findings: list[Finding]
) -> Categories:
    """The categories with their keypoints; raises ValueError for keypoints that violate the format."""
    described: dict[int, dict[str, Any]] = {}
    skeletons: set[tuple[tuple[int, int], ...]] = set()
    problems = []
    for entry in entries:
        if not entry.get("keypoints"):
            continue
        category = fields.integer(entry, "id", f"{keypoint_where}: a category")
        if category not in categories.ids:
            raise ValueError(f"{keypoint_where}: category {category} is not among the categories of {where}")
        described[category] = _keypoints(entry, f"{keypoint_where}: category {category}")
        try:
            skeletons.add(_skeleton(entry, len(described[category]["keypoint_names"])))
        except ValueError as error:
            problems.append(f"category {category}: {error}; the skeleton is not drawn")
    if not described:
        return categories
    if len({tuple(keypoints.items()) for keypoints in described.values()}) > 1:
        raise ValueError(f"{keypoint_where}: categories {sorted(described)} differ in keypoints or sigmas")
    skeletons.discard(())
    if len(skeletons) > 1:
        problems.append(f"categories {sorted(described)} differ in their skeleton, which is not drawn")
    findings += [Finding(keypoint_where, None, None, problem, True) for problem in problems]
    labels = tuple(label for label, category in enumerate(categories.ids, start=1) if category in described)
    return dataclasses.replace(
        categories,
        keypoint_labels=labels,
        skeleton=skeletons.pop() if len(skeletons) == 1 and not problems else (),
        **next(iter(described.values())),
    )


def _keypoints(entry: dict, where: str) -> dict[str, Any]:
    """The keypoint fields of ``Categories``, apart from the skeleton, from one category entry."""
    names = entry["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise fields.error(where, "keypoints", "a list of names", names)
    names = [_encodable(name) for name in names]
    if len(set(names)) < len(names):
        raise fields.error(where, "keypoints", "a list of distinct names", names)
    sigmas = entry.get("sigmas")
    if sigmas is not None and not (
        fields.is_numbers(sigmas) and len(sigmas) == len(names) and all(sigma > 0 for sigma in sigmas)
    ):
        raise fields.error(where, "sigmas", f"{len(names)} positive numbers, one per keypoint", sigmas)
    if sigmas is None:
        sigmas = COCO_SIGMAS if tuple(names) == COCO_KEYPOINTS else ()
    return {
        "keypoint_names": tuple(names),
        "flip_pairs": flip_pairs(tuple(names)),
        "sigmas": tuple(float(sigma) for sigma in sigmas),
    }


def _skeleton(entry: dict, count: int) -> tuple[tuple[int, int], ...]:
    """The pairs of keypoint indices, from 0; raises ValueError unless all are numbers from 1 to ``count``."""
    skeleton = entry.get("skeleton") or []
    if not isinstance(skeleton, list):
        raise fields.error("", "skeleton", "a list of pairs", skeleton)
    pairs = []
    for pair in skeleton:
        points = [fields.as_integer(point) or 0 for point in pair] if isinstance(pair, list) else []
        if len(points) != 2 or not all(1 <= point <= count for point in points):
            raise fields.error("", "skeleton", f"pairs of keypoint numbers from 1 to {count}", pair)
        pairs.append((points[0] - 1, points[1] - 1))
    return tuple(pairs)


def _encodable(text: str) -> str:
    """The text with U+FFFD for unpaired surrogates; pairs become the character they encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
