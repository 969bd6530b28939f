"""Writes the converted annotations, and counts them."""

from collections import Counter
from pathlib import Path
from typing import Any

from mrcnn_jax.data.findings import printable
from mrcnn_jax.json_files import write_json


def write_new(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file completely or not at all. Raises FileExistsError if there is one already."""
    path.open("x").close()  # reserves the name, so that no other file can be replaced
    try:
        write_json(path, content)
    except BaseException:
        path.unlink()
        raise


def count_categories(content: dict[str, Any]) -> str:
    """A table of a COCO file's categories: the numbers of objects, of those with a mask, and of images."""
    objects, masks = Counter[int](), Counter[int]()
    images: dict[int, set[int]] = {}
    for entry in content["annotations"]:
        category = entry["category_id"]
        objects[category] += 1
        masks[category] += bool(entry["segmentation"])
        images.setdefault(category, set()).add(entry["image_id"])
    rows: list[tuple[str, ...]] = [("category", "objects", "with mask", "images")]
    for category in content["categories"]:
        key = category["id"]
        counts = objects[key], masks[key], len(images.get(key, ()))
        rows.append((printable(category["name"]), *map(str, counts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(counts, widths[1:], strict=True))])
        for name, *counts in rows
    )
