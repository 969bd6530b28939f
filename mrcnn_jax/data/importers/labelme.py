"""Reads labelme's annotations: one JSON file per image, with a list of ``shapes``.

Format: https://github.com/wkentaro/labelme (``label_file.py``, ``utils/shape.py``), versions 3 to 6.
"""

import base64
import io
import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder, ImageFile, Keypoints
from mrcnn_jax.data.importers.files import find_files, image_names
from mrcnn_jax.data.importers.regions import Bitmap, Region, ellipse, polygon, read_points, rectangle
from mrcnn_jax.json_files import read_json

_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_VISIBLE = 2  # COCO's visibility of a keypoint that can be seen; labelme has no other
_NOT_OBJECTS = ("__ignore__", "_background_")  # labelme's own labels for pixels of no object


def add_labelme(builder: CocoBuilder, source: Path) -> None:
    """Adds the images and objects of a labelme file, or of all in a folder and below.

    Shapes of the same label and ``group_id`` are one object, and points of that ``group_id`` are its
    keypoints, named by their labels. Raises ValueError if there is no labelme file.
    """
    described = 0
    for path in tqdm(find_files(source, (".json",)), unit="file", leave=False, disable=None):
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            builder.problem(path, str(error).removeprefix(f"{path}: "))
            continue
        if not isinstance(content, dict) or "shapes" not in content:
            builder.leave_out("JSON files without 'shapes': not labelme's")
            continue
        described += 1
        try:
            _add_file(builder, source, path, content)
        except ValueError as error:
            builder.problem(path, str(error))
    if not described and not builder.findings:
        raise ValueError(f"{source}: there is no labelme file (a JSON file with 'shapes')")
    if source.is_dir():
        builder.leave_out_other_images("images without a JSON file: they may have objects")


def _add_file(builder: CocoBuilder, source: Path, path: Path, content: dict) -> None:
    name = PurePosixPath(fields.text(content, "imagePath").replace("\\", "/"))
    size = None
    if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
        size = fields.integer(content, "imageHeight"), fields.integer(content, "imageWidth")
    shapes = fields.section(content, "shapes", "the file")
    image = builder.add_image(path, image_names(builder.images, path, name), size=size)
    if image is None:
        return
    groups: dict[tuple, tuple[str, list[Region]]] = {}  # by label and group: name of the entry, parts
    points: dict[str | None, list[tuple[str, list[float]]]] = {}  # by group: label and place
    for index, shape in enumerate(shapes):
        entry = f"shapes[{index}]"
        try:
            if not isinstance(shape, dict):
                raise fields.error("", "it", "an object", shape)
            label = fields.text(shape, "label")
            kind = shape.get("shape_type") or "polygon"  # old versions have polygons only
            if label in _NOT_OBJECTS:
                builder.leave_out(f"shapes labelled {label!r}: labelme's word for no object")
                continue
            group = None if shape.get("group_id") is None else str(shape["group_id"])
            if kind == "point" and group is not None:
                points.setdefault(group, []).append((label, read_points(shape.get("points"), "points")[0]))
                continue
            if kind in _WITHOUT_AREA:
                builder.leave_out(f"shapes of type {kind!r}: they have no area")
                continue
            region = _read_region(shape, kind, image)
        except ValueError as error:
            builder.problem(path, f"{entry}: {error}")
            continue
        key = (label, index, None) if group is None else (label, None, group)
        groups.setdefault(key, (entry, []))[1].append(region)
    objects = Counter(group for _, _, group in groups)
    used = 0
    for (label, _, group), (entry, regions) in groups.items():
        keypoints = _keypoints(points.get(group, []), image) if objects[group] == 1 else {}
        used += len(keypoints)
        builder.add_object(image, label, regions, file=path, entry=entry, keypoints=keypoints)
    if unused := sum(map(len, points.values())) - used:
        what = "points in groups: not of one object, not the only one of their label, or not in the image"
        builder.leave_out(what, unused)


def _keypoints(points: list[tuple[str, list[float]]], image: ImageFile) -> Keypoints:
    """The keypoints of an object's group: the points in the image whose label is there once."""
    labels = Counter(label for label, _ in points)
    height, width = image.size
    return {
        label: (x, y, _VISIBLE)
        for label, (x, y) in points
        if labels[label] == 1 and 0 <= x <= width and 0 <= y <= height
    }


def _read_region(shape: dict, kind: Any, image: ImageFile) -> Region:
    points = read_points(shape.get("points"), "points")
    match kind:
        case "polygon" | "rotation" | "oriented_rectangle":
            return polygon(points)
        case "rectangle":
            return rectangle(points)
        case "circle":
            if len(points) != 2:
                raise fields.error("", "points", "the centre of a circle and a point on it", points)
            (x, y), (on_x, on_y) = points
            radius = math.hypot(on_x - x, on_y - y)
            return ellipse(x, y, radius, radius, size=image.size)
        case "mask":
            return _read_mask(shape.get("mask"), points, image)
    raise fields.error("", "shape_type", "polygon, rectangle, circle, mask, point, line or linestrip", kind)


def _read_mask(mask: Any, points: list[list[float]], image: ImageFile) -> Bitmap:
    """The pixels of a base64 PNG that are inside the image.

    The PNG covers the pixels from the first point to the second, inclusive, as in labelme's
    ``shapes_to_label``. labelme 5 counts a row and a column too many for a mask that touches the image's
    lower right edge, and a mask that was moved has fractions, which may round apart: so one is tolerated.
    """
    if not isinstance(mask, str):
        raise fields.error("", "mask", "a PNG in base64", mask)
    try:
        with Image.open(io.BytesIO(base64.b64decode(mask, validate=True)), formats=["PNG"]) as png:
            if png.width > image.size[1] or png.height > image.size[0]:
                raise ValueError(f"it has {png.width} x {png.height} pixels, more than the image")
            pixels = np.asarray(png.convert("L")) > 0
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise ValueError(f"mask cannot be decoded: {error}") from error
    if len(points) != 2:
        raise fields.error("", "points", "the two corners of a mask", points)
    (left, top), (right, bottom) = ((round(x), round(y)) for x, y in points)
    extent = bottom - top + 1, right - left + 1
    if any(abs(found - wanted) > 1 for found, wanted in zip(pixels.shape, extent, strict=True)):
        rule = f"corners of the mask of {pixels.shape[1]} x {pixels.shape[0]} pixels, both inside it"
        raise fields.error("", "points", rule, points)
    if all(float(number).is_integer() for point in points for number in point):
        pixels = pixels[: extent[0], : extent[1]]
    pixels = pixels[max(0, -top) : max(0, image.size[0] - top), max(0, -left) : max(0, image.size[1] - left)]
    if not pixels.any():
        raise ValueError(
            f"the mask has no pixel inside the image of {image.size[1]} x {image.size[0]} pixels"
        )
    return Bitmap(pixels, top=max(0, top), left=max(0, left))
