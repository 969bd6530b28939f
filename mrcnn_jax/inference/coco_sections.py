"""Writes what COCO files have in common. It imports no JAX, unlike ``coco_files``."""

from collections.abc import Iterable
from typing import Any, TextIO

from mrcnn_jax.json_files import dumps
from mrcnn_jax.runs.categories import UNUSED, Categories

# VIA imports nothing without "info" and a "supercategory", CVAT (datumaro) nothing without "licenses".
INFO = {"description": "Objects found by mrcnn_jax", "contributor": "mrcnn_jax"}
_SUPERCATEGORY = "object"


def coco_categories(categories: Categories) -> list[dict[str, Any]]:
    """The categories of a COCO dataset, without unused labels."""
    entries = []
    for label, (category, name) in enumerate(zip(categories.ids, categories.names, strict=True), start=1):
        entry: dict[str, Any] = {"id": category, "name": name, "supercategory": _SUPERCATEGORY}
        if label in categories.keypoint_labels:
            entry["keypoints"] = list(categories.keypoint_names)
            entry["skeleton"] = [[a + 1, b + 1] for a, b in categories.skeleton]
        if name != UNUSED:
            entries.append(entry)
    return entries


def write_list(file: TextIO, items: Iterable[dict[str, Any]], *, exact: bool) -> None:
    """Writes a JSON list without holding it in memory; for ``exact``, see ``json_files.dumps``."""
    file.write("[")
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + dumps(item, exact=exact))
    file.write("]")
