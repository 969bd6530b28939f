"""Reads which images a COCO file lists. It may have no annotations: ``image_info_test-dev2017.json``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.file_names import ImageFolder
from mrcnn_jax.data.source import check_size
from mrcnn_jax.image_names import image_names
from mrcnn_jax.images import Size, read_image
from mrcnn_jax.json_files import read_json
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.runs.categories import UNUSED, Categories

_LISTED = 10  # problems of a kind that a message lists


@dataclass(frozen=True)
class ImageList:
    """The images of a COCO file, in its order."""

    path: Path
    images: list[Path]
    ids: list[int]
    sizes: list[Size]  # height and width; empty if not asked for
    categories: dict[int, str]  # names by id; empty if the file has none
    category_entries: list[dict]  # the section itself, of which only ids and names were checked

    def pixels(self, index: int, pixels: PixelFormat = RGB) -> np.ndarray:
        """The image; raises ValueError, naming it, unless it is as ``pixels`` and of the file's size."""
        path = self.images[index]
        values = read_image(path, pixels)
        check_size(values, self.sizes[index], f"{path}: image {self.ids[index]} of {self.path}")
        return values

    def check_categories(self, run: Categories) -> None:
        """Raises ValueError unless all categories of the run are in the file, with the same id and name."""
        differences = [
            f"{number} is {name!r} in the run and {self.categories.get(number, 'missing')!r} here"
            for number, name in zip(run.ids, run.names, strict=True)
            if self.categories and name != UNUSED and self.categories.get(number) != name
        ]
        if differences:
            raise ValueError(f"{self.path}: categories differ: {_joined(differences)}")


def read_image_list(path: Path, folder: Path, *, sizes: bool = False) -> ImageList:
    """The images that the COCO file at ``path`` lists, as files of ``folder``; ``sizes``: with their sizes.

    Raises ValueError, naming the file, if it is not a COCO file, lists no images, an id is no integer or not
    unique, an image is listed twice, is not in ``folder`` or lacks a size that is asked for, and OSError if
    it cannot be read.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise fields.error(str(path), "the content", "an object", content)
    files = ImageFolder(folder)
    images, ids, missing = [], [], []
    found_sizes: list[Size] = []
    for number, entry in enumerate(fields.entries(content, "images", str(path))):
        where = f"{path}: images[{number}]"
        ids.append(fields.integer(entry, "id", where))
        try:
            name, image = files.find_any(image_names(entry))
            images.append(image)
            if sizes:
                found_sizes.append(
                    (coco_fields.read_side(entry, "height"), coco_fields.read_side(entry, "width"))
                )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if not files.has(images[-1]):
            missing.append(f"{name}: {files.missing(images[-1])}")
    if not images:
        raise ValueError(f"{path}: lists no images")
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of its {len(images)} images are not in {folder}: {_joined(missing)}"
        )
    for what, values in (("id", ids), ("file_name", images)):
        if repeated := _repeated(values):
            raise ValueError(f"{path}: several images have the same {what}: {_joined(repeated)}")
    entries = fields.entries(content, "categories", str(path)) if content.get("categories") else []
    categories = {
        fields.integer(entry, "id", f"{path}: categories"): fields.text(entry, "name", f"{path}: categories")
        for entry in entries
    }
    return ImageList(path, images, ids, found_sizes, categories, entries)


def _repeated(values: list) -> list[str]:
    return [str(value) for value, count in Counter(values).items() if count > 1]


def _joined(items: list[str]) -> str:
    return ", ".join(items[:_LISTED]) + (f" and {len(items) - _LISTED} more" if len(items) > _LISTED else "")
