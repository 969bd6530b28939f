"""The categories, which give labels a meaning: ``categories.json`` of a run, or of records."""

import dataclasses
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.config.io import typed
from mrcnn_jax.json_files import read_json, write_json

CATEGORIES_FILE = "categories.json"
UNUSED = "N/A"  # torchvision's name for a label without a category

# The largest vocabularies of datasets have some 20,000 names.
_MOST_ENTRIES = 100_000
_LONGEST_NAME = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclasses.dataclass(frozen=True)
class Categories:
    """The meaning of the labels, saved with every run.

    Label ``i`` (from 1) is category ``ids[i - 1]`` of the annotation file, called ``names[i - 1]``.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    keypoint_labels: tuple[int, ...] = ()  # the labels whose objects have keypoints
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of keypoint indices, from 0
    flip_pairs: tuple[tuple[int, int], ...] = ()  # keypoint indices to swap when flipping
    sigmas: tuple[float, ...] = ()  # per keypoint, COCO's k_i / 2, used in OKS

    def __len__(self) -> int:
        return len(self.ids)


def keypoint_flip_order(count: int, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The indices ``[K]`` that reorder keypoints for a flipped image."""
    order = np.arange(count)
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def save_categories(path: Path, categories: Categories) -> None:
    """Writes the categories to a file that ``load_categories`` reads."""
    write_json(path, dataclasses.asdict(categories), exact=True)


def load_categories(path: Path | zipfile.Path) -> Categories:
    """The categories in a file. Raises ValueError, naming it, if it is malformed or inconsistent."""
    values = read_json(path)
    try:
        categories = _from_dict(values)
        check_consistent(categories)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return categories


def _from_dict(values: Any) -> Categories:
    """The categories; raises ValueError unless ``values`` has exactly their fields, with the right types."""
    types = {field.name: field.type for field in dataclasses.fields(Categories)}
    if not isinstance(values, dict) or set(values) != set(types):
        raise ValueError(f"must be an object with the fields {', '.join(types)}")
    read = {}
    for name, value in values.items():
        try:
            read[name] = typed(value, types[name])
        except TypeError as error:
            raise ValueError(f"{name} is {error}") from error
    return Categories(**read)


def check_consistent(categories: Categories) -> None:
    """Raises ValueError if the fields contradict each other."""
    count, keypoints = len(categories.ids), len(categories.keypoint_names)
    names = categories.names + categories.keypoint_names
    entries = [len(getattr(categories, field.name)) for field in dataclasses.fields(categories)]
    pairs = [index for pair in categories.skeleton + categories.flip_pairs for index in pair]
    rules = {
        f"there must be at most {_MOST_ENTRIES} of anything": max(entries) <= _MOST_ENTRIES,
        "ids must not repeat": len(set(categories.ids)) == count,
        "ids must fit 64 bits": all(-(2**63) <= identifier < 2**63 for identifier in categories.ids),
        f"names must have at most {_LONGEST_NAME} characters": all(
            len(name) <= _LONGEST_NAME for name in names
        ),
        # They would break lines and tables, or command the terminal that they are printed on.
        "names must not have control characters": not any(map(_CONTROL.search, names)),
        f"there must be as many names as ids ({count})": len(categories.names) == count,
        f"keypoint_labels must be from 1 to {count}": all(
            1 <= label <= count for label in categories.keypoint_labels
        ),
        f"skeleton and flip_pairs must be indices of the {keypoints} keypoint_names, from 0": all(
            0 <= index < keypoints for index in pairs
        ),
        f"there must be no sigmas or as many as keypoint_names ({keypoints})": len(categories.sigmas)
        in (0, keypoints),
        "sigmas must be positive": all(sigma > 0 for sigma in categories.sigmas),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ValueError("; ".join(broken))
