"""Writes YOLO's annotations: ``labels/NAME.txt`` for each image, with a line per object, and ``data.yaml``.

Format: https://docs.ultralytics.com/datasets/segment/. Coordinates are shares of the image's sides.
"""

from pathlib import Path

import numpy as np
import yaml

from mrcnn_jax.images import Size
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.polygons import joined, outlines


def write_yolo(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes the files. The images have to be beside ``labels/``, in ``images/``, such as by a link.

    An object is one polygon: its parts and holes are ``joined``. Without a mask it is a box. The format has
    no scores.
    """
    for image in found:
        with folder.open(f"labels/{Path(image.name).with_suffix('.txt').as_posix()}") as file:
            file.writelines(f"{_line(item, image.size, tolerance)}\n" for item in image.objects)
    names = dict(enumerate(found.categories.names))
    content = {"train": "images", "val": "images", "names": names}
    with folder.open("data.yaml") as file:
        yaml.safe_dump(content, file, allow_unicode=True, sort_keys=False)


def _line(item: FoundObject, size: Size, tolerance: float) -> str:
    height, width = size
    if item.mask is None:
        x1, y1, x2, y2 = item.box
        values = np.array(
            [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        )
    else:
        values = joined(outlines(item.mask, tolerance)) / (width, height)
    return " ".join([str(item.label - 1), *(f"{value:.6f}" for value in values.ravel().tolist())])
