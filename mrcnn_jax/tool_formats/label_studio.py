"""Writes Label Studio's tasks with predictions, ``tasks.json``, and a labeling interface, ``config.xml``.

Format: https://labelstud.io/guide/predictions. Brush masks: ``brush_runs``.
"""

import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.inference.coco_sections import write_list
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundImage, FoundObject
from mrcnn_jax.tool_formats.polygons import outlines
from mrcnn_jax.tool_formats.xml_text import xml_text

_MODEL = "mrcnn_jax"
_WORD, _LENGTHS = 8, (3, 4, 8, 16)  # bits of a value, and of the four sizes of run lengths
_POINT = 0.5  # how wide a keypoint is drawn, in percent of the image's width
_CHANNELS = 4  # red, green, blue and alpha, all equal


def write_label_studio(
    found: Found, folder: OutputFolder, *, tolerance: float, image_url: str | None = None
) -> None:
    """Writes both files: the interface for the project's settings, the tasks to import.

    An image's address is ``image_url`` followed by its name; None: ``local_files_url``. An object is a
    polygon, a brush mask if it has holes or several parts, or a rectangle if it has no mask. Its keypoints
    are regions within it. Each object has its score; a task has their mean, to sort by. Raises ValueError for
    names that XML cannot hold.
    """
    if image_url is None:
        image_url = local_files_url(found.folder)
    with folder.open("config.xml") as file:
        file.write(_interface(found.categories))
    with folder.open("tasks.json") as file:
        write_list(file, (_task(image, tolerance, image_url) for image in found), exact=False)
        file.write("\n")


def local_files_url(folder: Path) -> str:
    """What precedes the names of a folder's images where Label Studio serves local files.

    Its ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`` is then the folder that ``folder`` is in: it refuses to
    serve the files of the root itself.
    """
    name = urllib.parse.quote(os.path.basename(os.path.abspath(folder)), errors="surrogateescape")
    return f"/data/local-files/?d={name}/"


def _interface(categories: Categories) -> str:
    kinds = ("Rectangle", "Polygon", "Brush")
    labels = "".join(f'      <Label value="{xml_text(name)}"/>\n' for name in categories.names)
    controls = "".join(
        f'    <{kind}Labels name="{kind.lower()}" toName="image">\n{labels}    </{kind}Labels>\n'
        for kind in kinds
    )
    if categories.keypoint_names:
        points = "".join(  # model_index is the order in Label Studio's own exports
            f'      <Label value="{xml_text(name)}" model_index="{index}"/>\n'
            for index, name in enumerate(categories.keypoint_names)
        )
        controls += f'    <KeyPointLabels name="keypoint" toName="image">\n{points}    </KeyPointLabels>\n'
    return f'<View>\n    <Image name="image" value="$image" zoom="true"/>\n{controls}</View>\n'


def _task(image: FoundImage, tolerance: float, image_url: str) -> dict[str, Any]:
    scores = [item.score for item in image.objects if item.score is not None]
    prediction: dict[str, Any] = {
        "model_version": _MODEL,
        "result": [
            region
            for number, item in enumerate(image.objects, start=1)
            for region in _regions(item, number, image, tolerance)
        ],
    }
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    name = urllib.parse.quote(image.name, errors="surrogateescape")
    return {"data": {"image": image_url + name}, "predictions": [prediction]}


def _regions(item: FoundObject, number: int, image: FoundImage, tolerance: float) -> Iterator[dict[str, Any]]:
    """The object's region, then those of its keypoints."""
    height, width = image.size
    name = f"{image.id}-{number}"
    kind, value = _geometry(item, image, tolerance)
    score = {} if item.score is None else {"score": item.score}
    yield _region(name, kind, item.name, value, image) | score
    for point, (x, y) in item.keypoints.items():
        place = {"x": 100 * x / width, "y": 100 * y / height, "width": _POINT}
        yield _region(f"{name}-{point}", "keypoint", point, place, image) | {"parentID": name}


def _region(
    identifier: str, kind: str, label: str, value: dict[str, Any], image: FoundImage
) -> dict[str, Any]:
    height, width = image.size
    return {
        "id": identifier,
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value | {f"{kind}labels": [label]},
    }


def _geometry(item: FoundObject, image: FoundImage, tolerance: float) -> tuple[str, dict[str, Any]]:
    """The kind of region, and its value, in percent of the image's sides."""
    height, width = image.size
    percent = np.array([100 / width, 100 / height])
    if item.mask is None:
        corners = np.reshape(item.box, (2, 2)) * percent
        (x, y), (w, h) = corners[0].tolist(), (corners[1] - corners[0]).tolist()
        return "rectangle", {"x": x, "y": y, "width": w, "height": h, "rotation": 0}
    polygons = outlines(item.mask, tolerance)
    if len(polygons) == 1:
        return "polygon", {"points": (polygons[0] * percent).tolist(), "closed": True}
    bitmap = np.zeros(image.size, bool)
    item.mask.write(bitmap)
    return "brush", {"format": "rle", "rle": brush_runs(bitmap)}


def brush_runs(bitmap: np.ndarray) -> list[int]:
    """A mask ``[H W]`` as Label Studio stores brush strokes: bytes of a run-length encoding of RGBA pixels.

    The bits are those of thi.ng/rle-pack: 32 for the number of values, 5 for the bits of a value less 1, 4
    times 4 for the bits of the four sizes of lengths less 1. Then each run has a 1, two bits for the size,
    its length less 1, and the value.
    """
    values = bitmap.ravel()
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = np.diff(starts, append=len(values)) * _CHANNELS
    bits = [f"{len(values) * _CHANNELS:032b}", f"{_WORD - 1:05b}", *(f"{n - 1:04b}" for n in _LENGTHS)]
    longest = 1 << _LENGTHS[-1]
    for is_inside, length in zip(values[starts].tolist(), lengths.tolist(), strict=True):
        value = "1" * _WORD if is_inside else "0" * _WORD
        for done in range(0, length, longest):
            rest = min(length - done, longest) - 1
            size = next(i for i, n in enumerate(_LENGTHS) if rest < 1 << n)
            bits.append(f"1{size:02b}{rest:0{_LENGTHS[size]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]
