"""Reads LVIS's annotations: COCO's format with more sections, and images named by their URL.

Format: https://www.lvisdataset.org/dataset
"""

from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.importers.builder import CocoBuilder, ImageFile
from mrcnn_jax.json_files import read_json

# What an image has beside the objects: categories that are certainly absent, or not annotated completely.
_ONLY_LVIS = ("neg_category_ids", "not_exhaustive_category_ids")


def add_lvis(builder: CocoBuilder, path: Path) -> None:
    """Adds the images and objects of an LVIS file, with its ids, boxes, areas and polygons.

    An image is ``train2017/000000000009.jpg``, the end of its URL, in the folder of images, or there without
    ``train2017``. Raises ValueError if the file is not LVIS's.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'images', 'annotations' and 'categories'")
    where = str(path)
    names: dict[int, str] = {}
    for entry in fields.entries(content, "categories", where):
        names[fields.integer(entry, "id", f"{where}: a category")] = fields.text(entry, "name", where)
    builder.declare_categories({name: key for key, name in names.items()})
    images: dict[int, ImageFile | None] = {}
    for entry in tqdm(fields.entries(content, "images", where), unit="image", leave=False, disable=None):
        try:
            identifier = fields.integer(entry, "id", "an image")
            size = coco_fields.read_side(entry, "height"), coco_fields.read_side(entry, "width")
            candidates = _file_names(entry)
        except ValueError as error:
            builder.problem(path, str(error))
            continue
        for section in _ONLY_LVIS:
            if not isinstance(entry.get(section, []), list):
                builder.problem(
                    path, str(fields.error(f"image {identifier}", section, "a list", entry[section]))
                )
                continue
            builder.leave_out(
                f"ids in {section!r}: COCO's format has no such field", len(entry.get(section, []))
            )
        images[identifier] = builder.add_image(path, candidates, size=size, image_id=identifier)
    for index, entry in enumerate(fields.entries(content, "annotations", where)):
        try:
            _add_object(builder, entry, images, names)
        except ValueError as error:
            builder.problem(path, f"annotations[{index}]: {error}")
    builder.left_out = +builder.left_out  # without counts of 0


def _file_names(entry: dict) -> list[str]:
    """Where the image may be, relative to the folder of images."""
    name = entry.get("file_name") or fields.text(entry, "coco_url")
    parts = PurePosixPath(fields.text({"name": name}, "name")).parts[-2:]
    return ["/".join(parts), parts[-1]]


def _add_object(
    builder: CocoBuilder, entry: dict, images: dict[int, ImageFile | None], names: dict[int, str]
) -> None:
    image = images[coco_fields.read_image_id(entry, images)]
    category = fields.integer(entry, "category_id")
    if category not in names:
        raise ValueError(f"category_id {category} is not among the categories")
    if image is None:
        return  # its finding says why
    segmentation: Any = entry.get("segmentation")
    coco_fields.read_box(entry)
    coco_fields.read_segmentation(
        coco_fields.pack_polygons({"segmentation": segmentation})["segmentation"], image.size
    )
    kept = {"bbox": entry["bbox"], "segmentation": segmentation or []}
    if coco_fields.read_area(entry) is not None:
        kept["area"] = entry["area"]
    builder.add_fields(image, names[category], kept, annotation_id=fields.integer(entry, "id"))
