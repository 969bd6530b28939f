"""COCO-format data sets: annotation files and image folders, checked as they are read."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mrcnn_jax.data import fields
from mrcnn_jax.data.categories import read_categories
from mrcnn_jax.json_files import read_json
from mrcnn_jax.rle import Rle
from mrcnn_jax.types import Categories

# A tuple of polygons [N 2] in pixels, or a bitmap of the image's size.
Segmentation = tuple[np.ndarray, ...] | Rle


@dataclass(frozen=True, eq=False, slots=True)
class CocoAnnotation:
    """One object, in pixels of the original image."""

    id: int
    label: int  # 1 to the number of categories
    box: tuple[float, float, float, float]  # x1 y1 x2 y2
    crowd: bool  # a group of objects, not to be told apart
    segmentation: Segmentation | None  # None: not known, or without a polygon that has an inside
    keypoints: np.ndarray | None  # [K 3] float32: x, y, visibility
    area: float | None = None  # of the mask in square pixels, as the file says; evaluation sorts by it


@dataclass(frozen=True, eq=False, slots=True)
class CocoImage:
    """One image and its objects. Its size is that of the upright image (EXIF applied)."""

    id: int
    path: Path
    file_name: str  # as in the annotation file
    height: int
    width: int
    annotations: tuple[CocoAnnotation, ...]


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The images of one annotation file, in the file's order."""

    name: str  # the annotation file, for messages
    categories: Categories
    images: tuple[CocoImage, ...]


def read_coco(root: str | Path, *, images: str, annotations: str, keypoints: str = "") -> CocoDataset:
    """The data set of the folder ``images`` and the file ``annotations``, both relative to ``root``.

    Args:
        root: Folder of the data set.
        images: Folder that the ``file_name`` of the images is relative to.
        annotations: ``instances_*.json``. Keypoints are read from it where its categories name them ...
        keypoints: ... or from this ``person_keypoints_*.json``, joined by annotation id.

    Raises:
        ValueError: naming file, image or annotation id, field and rule, for folders or files that are missing
            and entries that break the format's rules.
    """
    root = Path(root)
    folder = root / images
    for place in (root, folder):
        if not place.is_dir():
            raise ValueError(f"{place}: there is no such folder")
    path = root / annotations
    content = _read_object(path)
    keypoint_path = root / keypoints if keypoints else path
    keypoint_content = _read_object(keypoint_path) if keypoints else content

    categories = read_categories(
        fields.entries(content, "categories", str(path)),
        str(path),
        keypoint_entries=fields.entries(keypoint_content, "categories", str(keypoint_path)),
        keypoint_where=str(keypoint_path),
    )
    if keypoints and not categories.keypoint_names:
        raise ValueError(f"{keypoint_path}: no category has a 'keypoints' list of names")
    image_entries = _by_id(content, "images", path)
    annotation_entries = _by_id(content, "annotations", path)
    if keypoints:
        _join_keypoints(annotation_entries, keypoint_content, keypoint_path, path)

    sizes = {}
    for image_id, entry in image_entries.items():
        where = f"{path}: image {image_id}"
        sizes[image_id] = tuple(fields.integer(entry, key, where, minimum=1) for key in ("height", "width"))
    labels = {category: label for label, category in enumerate(categories.ids, start=1)}
    objects: dict[int, list[CocoAnnotation]] = {image_id: [] for image_id in image_entries}
    for annotation_id, entry in annotation_entries.items():
        where = f"{path}: annotation {annotation_id}"
        image_id = fields.integer(entry, "image_id", where)
        if image_id not in sizes:
            raise ValueError(f"{where}: image_id {image_id} is not among the images")
        category = fields.integer(entry, "category_id", where)
        if category not in labels:
            raise ValueError(f"{where}: category_id {category} is not among the categories {list(labels)}")
        objects[image_id].append(
            _read_annotation(entry, where, labels[category], size=sizes[image_id], categories=categories)
        )

    dataset = CocoDataset(
        name=str(path),
        categories=categories,
        images=tuple(
            _read_image_entry(entry, f"{path}: image {image_id}", folder, sizes[image_id], objects[image_id])
            for image_id, entry in image_entries.items()
        ),
    )
    _check_files(dataset, folder)
    return dataset


def _read_object(path: Path) -> dict:
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'images', 'annotations' and 'categories'")
    return content


def _by_id(content: dict, section: str, path: Path) -> dict[int, dict]:
    """The entries of a section, keyed by their id, in the order of the file."""
    by_id: dict[int, dict] = {}
    for index, entry in enumerate(fields.entries(content, section, str(path))):
        entry_id = fields.integer(entry, "id", f"{path}: {section}[{index}]")
        if entry_id in by_id:
            raise ValueError(f"{path}: {section} has id {entry_id} twice")
        by_id[entry_id] = entry
    return by_id


def _join_keypoints(
    annotations: dict[int, dict], keypoint_content: dict, keypoint_path: Path, path: Path
) -> None:
    """Gives ``annotations`` the keypoints of the second file."""
    for annotation_id, entry in _by_id(keypoint_content, "annotations", keypoint_path).items():
        instance = annotations.get(annotation_id)
        if instance is None or instance.get("image_id") != entry.get("image_id"):
            raise ValueError(
                f"{keypoint_path}: annotation {annotation_id} (image_id {entry.get('image_id')}) has no "
                f"annotation of the same id and image_id in {path}"
            )
        instance["keypoints"] = entry.get("keypoints")


def _read_image_entry(
    entry: dict, where: str, folder: Path, size: tuple[int, ...], annotations: list[CocoAnnotation]
) -> CocoImage:
    file_name = fields.text(entry, "file_name", where)
    relative = PurePosixPath(file_name)
    if relative.is_absolute() or ".." in relative.parts:
        raise fields.error(where, "file_name", "a path inside the image folder", file_name)
    return CocoImage(
        id=entry["id"],
        path=folder / relative,
        file_name=file_name,
        height=size[0],
        width=size[1],
        annotations=tuple(annotations),
    )


def _read_annotation(
    entry: dict, where: str, label: int, *, size: tuple[int, ...], categories: Categories
) -> CocoAnnotation:
    bbox: Any = entry.get("bbox")
    if not (fields.is_numbers(bbox) and len(bbox) == 4 and bbox[2] >= 0 and bbox[3] >= 0):
        raise fields.error(where, "bbox", "[x, y, width, height], finite, width and height >= 0", bbox)
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise fields.error(where, "iscrowd", "0 or 1", crowd)
    area = entry.get("area")
    if area is not None and not (fields.is_numbers([area]) and area >= 0):
        raise fields.error(where, "area", "a number of square pixels, at least 0", area)
    x, y, width, height = bbox
    return CocoAnnotation(
        id=entry["id"],
        label=label,
        box=(float(x), float(y), float(x + width), float(y + height)),
        crowd=bool(crowd),
        segmentation=_read_segmentation(entry.get("segmentation"), where, size),
        keypoints=_read_keypoints(entry.get("keypoints"), where, label, categories),
        area=None if area is None else float(area),
    )


def _read_segmentation(value: Any, where: str, size: tuple[int, ...]) -> Segmentation | None:
    if not value:
        return None
    if isinstance(value, dict):
        try:
            rle = Rle.from_json(value)
        except ValueError as error:
            raise ValueError(f"{where}: segmentation: {error}") from error
        if (rle.height, rle.width) != size:
            rule = f"of the image's size [{size[0]}, {size[1]}]"
            raise fields.error(where, "segmentation", rule, [rle.height, rle.width])
        return rle
    if not isinstance(value, list):
        raise fields.error(where, "segmentation", "a list of polygons or an RLE", value)
    for polygon in value:
        if not fields.is_numbers(polygon) or len(polygon) % 2:
            rule = "polygons [x1, y1, x2, y2, ...] of finite numbers"
            raise fields.error(where, "segmentation", rule, polygon)
    # Points and lines have no inside: they are left out, as Detectron2 does.
    polygons = (np.array(polygon, np.float64).reshape(-1, 2) for polygon in value if len(polygon) >= 6)
    return tuple(polygons) or None


def _read_keypoints(value: Any, where: str, label: int, categories: Categories) -> np.ndarray | None:
    if not value or not categories.keypoint_names:
        return None
    if label not in categories.keypoint_labels:
        name = categories.names[label - 1]
        raise ValueError(f"{where}: has keypoints, but its category {name!r} names none")
    count = len(categories.keypoint_names)
    if not fields.is_numbers(value) or len(value) != 3 * count:
        raise fields.error(where, "keypoints", f"[x, y, visibility] of each of the {count} keypoints", value)
    points = np.array(value, np.float32).reshape(count, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise fields.error(where, "keypoints", "of visibility 0, 1 or 2", points[:, 2].tolist())
    return points


def _check_files(dataset: CocoDataset, folder: Path) -> None:
    """Raises ValueError if image files are missing, naming the first ten."""
    listings: dict[Path, set[str]] = {}  # one look per folder: cheaper than one per file
    missing = []
    for image in dataset.images:
        parent = image.path.parent
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if parent.is_dir() else set()
        if image.path.name not in listings[parent]:
            missing.append(image.file_name)
    if missing:
        names = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(f"{folder}: {len(missing)} of the {len(dataset.images)} images are missing: {names}")
