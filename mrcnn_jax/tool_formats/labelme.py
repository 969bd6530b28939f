"""Writes labelme's annotations: a JSON file for each image, with a list of ``shapes``.

Format: https://github.com/wkentaro/labelme (``label_file.py``), version 5.
"""

import base64
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.json_files import dumps
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.polygons import has_holes, outlines

_VERSION = "5.5.0"  # of the format; labelme 6 reads it, too


def write_labelme(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes ``NAME.json`` for ``NAME.jpg``: in the folder of the images, it is what labelme opens with them.

    In another folder its ``imagePath`` leads to the image. An object is a polygon, several of one
    ``group_id`` if it has several parts, a mask if it has holes, or a rectangle if it has no mask. The score
    is in ``description``. Its keypoints are points of the same ``group_id``, labelled with their names.
    """
    for image in found:
        name = Path(image.name).with_suffix(".json")
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": [
                shape
                for number, item in enumerate(image.objects, start=1)
                for shape in _shapes(item, number, tolerance)
            ],
            "imagePath": Path(os.path.relpath(image.file, (folder.path / name).parent)).as_posix(),
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        with folder.open(name.as_posix()) as file:
            file.write(dumps(content, exact=True) + "\n")


def _shapes(item: FoundObject, number: int, tolerance: float) -> list[dict[str, Any]]:
    score = "" if item.score is None else f"score {item.score:.4g}"
    shapes = [{"label": item.name, "description": score} | part for part in _parts(item, tolerance)]
    shapes += [
        {"label": name, "description": "", "shape_type": "point", "points": [list(place)]}
        for name, place in item.keypoints.items()
    ]
    common: dict[str, Any] = {"group_id": number if len(shapes) > 1 else None, "flags": {}, "mask": None}
    return [common | shape for shape in shapes]


def _parts(item: FoundObject, tolerance: float) -> list[dict[str, Any]]:
    """The shapes of an object, by the fields in which they differ."""
    if item.mask is None:
        x1, y1, x2, y2 = item.box
        return [{"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}]
    polygons = outlines(item.mask, tolerance)
    if has_holes(polygons):
        (height, width), top, left = item.mask.mask.shape, item.mask.top, item.mask.left
        corners = [[left, top], [left + width - 1, top + height - 1]]  # the first and the last pixel
        return [{"shape_type": "mask", "points": corners, "mask": _png(item.mask)}]
    return [{"shape_type": "polygon", "points": polygon.tolist()} for polygon in polygons]


def _png(mask: PastedMask) -> str:
    data = io.BytesIO()
    Image.fromarray(mask.mask).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")
