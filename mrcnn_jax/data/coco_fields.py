"""Parses the fields of COCO image and annotation entries.

Each function returns one field of an entry, or raises ValueError with the field, the value and the rule.
"""

from array import array
from collections.abc import Collection
from typing import Any

import numpy as np

from mrcnn_jax.data import fields
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

# Polygons, each [N 2] in pixels, or a bitmap of the image's size.
Segmentation = tuple[np.ndarray, ...] | Rle
Box = tuple[float, float, float, float]  # x1 y1 x2 y2

_LARGEST_SIDE = 2**31 - 1  # pixels; sizes are stored as int32


def read_side(entry: dict, key: str) -> int:
    """The height or width of an image."""
    side = fields.integer(entry, key, minimum=1)
    if side > _LARGEST_SIDE:
        raise fields.error("", key, f"at most {_LARGEST_SIDE}", side)
    return side


def read_image_id(entry: dict, known: Collection[int]) -> int:
    """The image id, which must be in ``known``."""
    image_id = fields.integer(entry, "image_id")
    if image_id not in known:
        raise ValueError(f"image_id {image_id} is not among the images")
    return image_id


def read_label(entry: dict, labels: dict[int, int]) -> int:
    """The label of the object; ``labels`` maps category ids to labels."""
    category = fields.integer(entry, "category_id")
    if category not in labels:
        raise ValueError(f"category_id {category} is not among the categories {list(labels)}")
    return labels[category]


def read_box(entry: dict) -> Box:
    """The box as ``x1 y1 x2 y2``, not clipped."""
    bbox: Any = entry.get("bbox")
    if not (fields.is_numbers(bbox) and len(bbox) == 4 and bbox[2] >= 0 and bbox[3] >= 0):
        raise fields.error("", "bbox", "[x, y, width, height], finite, width and height >= 0", bbox)
    x, y, width, height = bbox
    return float(x), float(y), float(x + width), float(y + height)


def read_labels(entry: dict, key: str, labels: dict[int, int]) -> tuple[int, ...]:
    """The labels of a list of category ids, in order; none if it is absent."""
    found = entry.get(key) or []
    ids = [fields.as_integer(value) for value in found] if isinstance(found, list) else [None]
    if not all(category in labels for category in ids):
        raise fields.error("", key, "ids of categories", entry[key])
    return tuple(sorted({labels[category] for category in ids if category is not None}))


def read_crowd(entry: dict) -> bool:
    """The crowd flag; False if absent or null."""
    crowd = entry.get("iscrowd")
    if crowd not in (0, 1, None):
        raise fields.error("", "iscrowd", "0 or 1", crowd)
    return bool(crowd)


def read_area(entry: dict) -> float | None:
    """The area in square pixels; None if absent."""
    area = entry.get("area")
    if area is not None and not (fields.is_numbers([area]) and area >= 0):
        raise fields.error("", "area", "a number of square pixels, at least 0", area)
    return None if area is None else float(area)


def pack_polygons(entry: dict) -> dict:
    """The entry with its polygons ``[x1, y1, x2, y2, ...]`` as arrays, which take a quarter of the memory.

    Anything that is not a polygon is left unchanged, for ``read_segmentation`` to report.
    """
    polygons = entry.get("segmentation")
    if isinstance(polygons, list):
        entry["segmentation"] = [array("d", item) if _is_polygon(item) else item for item in polygons]
    return entry


def drop_segmentation(entry: dict) -> dict:
    """The entry without its segmentation, which takes most of the memory."""
    entry.pop("segmentation", None)
    return entry


def _is_polygon(value: Any) -> bool:
    return fields.is_numbers(value) and len(value) % 2 == 0


def read_segmentation(value: Any, size: Size | None) -> Segmentation | None:
    """The polygons of at least three points, or an RLE of ``size`` (None: any size); None without either.

    ``value`` is from an entry that ``pack_polygons`` returned.
    """
    if not value:
        return None
    if isinstance(value, dict):
        try:
            rle = Rle.from_json(value)
        except ValueError as error:
            raise ValueError(f"segmentation: {error}") from error
        if size is not None and (rle.height, rle.width) != size:
            rule = f"the size of the image, [{size[0]}, {size[1]}]"
            raise fields.error("", "segmentation", rule, [rle.height, rle.width])
        return rle
    if not isinstance(value, list):
        raise fields.error("", "segmentation", "a list of polygons or an RLE", value)
    if wrong := _misshapen(value):
        raise ValueError(f"segmentation must be a list of polygons [[x1, y1, x2, y2, ...], ...], got {wrong}")
    for polygon in value:
        if not isinstance(polygon, array):
            rule = "polygons [x1, y1, x2, y2, ...] of finite numbers"
            raise fields.error("", "segmentation", rule, polygon)
    # Points and lines enclose no area and are dropped, as in Detectron2.
    polygons = (np.array(polygon).reshape(-1, 2) for polygon in value if len(polygon) >= 6)
    return tuple(polygons) or None


def _misshapen(value: list) -> str:
    """What a segmentation is instead of a list of polygons, if it is one polygon or has points as lists."""
    numbers = [item for item in value if type(item) in (int, float)]
    if len(numbers) == len(value):
        return f"one flat list of {len(value)} numbers"
    # One or two such items can be degenerate polygons, which official COCO files have.
    if len(value) >= 3 and all(isinstance(item, array) and len(item) == 2 for item in value):
        return f"a list of {len(value)} points [x, y]"
    if all(isinstance(item, list) and item and all(map(_is_point, item)) for item in value):
        return f"polygons as lists of points [x, y], the first of {len(value[0])} points"
    return ""


def _is_point(value: Any) -> bool:
    return fields.is_numbers(value) and len(value) == 2


def read_keypoints(value: Any, label: int | None, categories: Categories) -> np.ndarray | None:
    """The keypoints ``[K 3]`` float32; None without any, or if all are 0. ``label`` None: unknown category.

    Converters write zeros for all objects, of whatever category.
    """
    if not value or not categories.keypoint_names or (fields.is_numbers(value) and not any(value)):
        return None
    if label is not None and label not in categories.keypoint_labels:
        name = categories.names[label - 1]
        raise ValueError(f"has keypoints, but its category {name!r} defines none")
    count = len(categories.keypoint_names)
    if not fields.is_numbers(value) or len(value) != 3 * count:
        raise fields.error("", "keypoints", f"[x, y, visibility] for each of the {count} keypoints", value)
    points = np.array(value, np.float32).reshape(count, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise fields.error("", "keypoints", "of visibility 0, 1 or 2", points[:, 2].tolist())
    return points
