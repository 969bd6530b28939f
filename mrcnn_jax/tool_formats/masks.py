"""Writes a black and white PNG for each object, and a table of them."""

import csv
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found

_LONGEST = 100  # bytes of a folder's name; file systems take 255
_COLUMNS = ("mask", "image", "category", "score")


def write_masks(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes ``CATEGORY/NAME/3.png`` for the third object of ``NAME.jpg``: 255 inside, 0 outside.

    A mask has the size of the image, so that overlapping objects keep all their pixels. ``objects.csv`` has
    the file, image, category and score of each. Objects without a mask are left out. ``tolerance`` does not
    matter.
    """
    del tolerance  # masks are exact
    folders = _folders(found.categories)
    with folder.open("objects.csv") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for image in found:
            found.leave_out_keypoints(image, "a mask")
            name = Path(image.name).with_suffix("").as_posix()
            for number, item in enumerate(image.objects, start=1):
                if item.mask is None:
                    found.left_out["objects without a mask"] += 1
                    continue
                pixels = np.zeros(image.size, bool)
                item.mask.write(pixels)
                place = f"{folders[item.label - 1]}/{name}/{number}.png"
                with folder.open_bytes(place) as png:
                    Image.fromarray(pixels.astype(np.uint8) * 255).save(png, "PNG")
                score = "" if item.score is None else f"{item.score:.6g}"
                table.writerow([place, image.name, item.name, score])


def _folders(categories: Categories) -> list[str]:
    """A distinct folder for each category: its name without what file systems may refuse."""
    folders: list[str] = []
    for number, name in zip(categories.ids, categories.names, strict=True):
        plain = re.sub(r"[^\w -]", "_", name)
        plain = plain.encode()[:_LONGEST].decode(errors="ignore").strip() or str(number)
        if plain.casefold() in map(str.casefold, folders):
            plain = f"{plain}-{number}"
        folders.append(plain)
    return folders
