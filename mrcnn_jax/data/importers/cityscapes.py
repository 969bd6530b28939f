"""Reads Cityscapes' fine annotations: ``gtFine/SPLIT/CITY/`` beside the images ``leftImg8bit/SPLIT/CITY/``.

An object's mask is its pixels in ``*_gtFine_instanceIds.png``, as in Cityscapes' own evaluation. A value from
1000 on is class id * 1000 + number of the object. A smaller one is a class id alone; if the class has
instances, the pixels are of groups that could not be told apart ("cargroup" in the polygons).

Classes: https://github.com/mcordts/cityscapesScripts (``helpers/labels.py``). Objects and groups are those of
Detectron2's ``load_cityscapes_instances``, which leaves out objects of one row or column of pixels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder
from mrcnn_jax.data.importers.files import find_folder, read_mask
from mrcnn_jax.data.importers.regions import Bitmap, to_coco
from mrcnn_jax.images import Size
from mrcnn_jax.json_files import read_json

CATEGORIES = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip
_NOT_EVALUATED = {29: "caravan", 30: "trailer"}  # the other classes with instances
_LAST_CLASS = 33
_PER_CLASS = 1000
_POLYGONS, _INSTANCES = "_gtFine_polygons.json", "_gtFine_instanceIds.png"
_IMAGE = "_leftImg8bit.png"


def image_folder(source: Path, split: str | None) -> Path:
    """The folder with the images of a split, in a folder for each city.

    Raises ValueError if ``source`` does not have the split, or has no images.
    """
    split = _annotation_folder(source, split).name
    folder = find_folder(source, "leftImg8bit")
    if folder is None:
        raise ValueError(
            f"{source}: has no folder leftImg8bit of images; --images=FOLDER names that of the split"
        )
    return folder / split


def add_cityscapes(builder: CocoBuilder, source: Path, *, split: str | None) -> None:
    """Adds the images of a split and the objects of the eight classes that Cityscapes evaluates.

    Groups become crowds; all other classes are left out. Raises ValueError if there is no such split, or if
    it has no annotations.
    """
    annotations = _annotation_folder(source, split)
    builder.declare_categories(CATEGORIES)
    names = sorted(
        {
            path.relative_to(folder).as_posix().removesuffix(suffix)
            for folder, suffix in (
                (annotations, _POLYGONS), (annotations, _INSTANCES), (builder.images, _IMAGE),
            )
            for path in folder.glob(f"*/*{suffix}")
        }
    )  # fmt: skip
    if not names:
        raise ValueError(f"{annotations}: there are no annotations CITY/*{_POLYGONS}")
    for name in tqdm(names, unit="image", leave=False, disable=None):
        files = [annotations / f"{name}{suffix}" for suffix in (_POLYGONS, _INSTANCES)]
        missing = [path for path in files if not path.is_file()]
        for path in missing:
            builder.problem(path, "there is no such file")
        if not missing:
            _add_image(builder, annotations, name)


def _annotation_folder(source: Path, split: str | None) -> Path:
    folder = find_folder(source, "gtFine")
    if folder is None:
        raise ValueError(f"{source}: has no folder gtFine of annotations")
    splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if split not in splits:
        given = "--split is missing" if split is None else f"--split={split}: there is no such split"
        raise ValueError(f"{given}; {folder} has {', '.join(splits) or 'none'}")
    return folder / split


def _add_image(builder: CocoBuilder, annotations: Path, name: str) -> None:
    path, masks = annotations / f"{name}{_POLYGONS}", annotations / f"{name}{_INSTANCES}"
    try:
        size = _read_size(path)
    except OSError as error:
        builder.problem(path, f"cannot be read: {error.strerror}")
        return
    except ValueError as error:
        builder.problem(path, str(error).removeprefix(f"{path}: "))
        return
    image = builder.add_image(path, [f"{name}{_IMAGE}"], size=size)
    if image is None:
        return
    try:
        values = read_mask(masks)
        if values.shape != image.size:
            raise ValueError(
                f"must have the size of the image, {image.size[1]} x {image.size[0]}, "
                f"got {values.shape[1]} x {values.shape[0]}"
            )
        objects = list(_objects(values))
    except ValueError as error:
        builder.problem(masks, str(error).removeprefix(f"{masks}: "))
        builder.remove_image(image)
        return
    names = {number: category for category, number in CATEGORIES.items()}
    for value, region in objects:
        number = value // _PER_CLASS or value
        if number in names:
            crowd = {"iscrowd": int(value < _PER_CLASS)}
            builder.add_fields(image, names[number], to_coco([region], image.size) | crowd)
        elif number in _NOT_EVALUATED:
            builder.leave_out(f"objects of class {_NOT_EVALUATED[number]!r}: Cityscapes does not evaluate it")


def _read_size(path: Path) -> Size:
    """Height and width of the image that a file of polygons is for."""
    content: Any = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("must hold one JSON object with 'imgHeight', 'imgWidth' and 'objects'")
    fields.entries(content, "objects", str(path))
    return fields.integer(content, "imgHeight", minimum=1), fields.integer(content, "imgWidth", minimum=1)


def _objects(values: np.ndarray) -> Iterator[tuple[int, Bitmap]]:
    """Each value of a class with instances, in ascending order, and its pixels."""
    rows, columns = np.nonzero(values >= min(CATEGORIES.values()))
    found = values[rows, columns]
    order = np.argsort(found, kind="stable")
    rows, columns, found = rows[order], columns[order], found[order]
    numbers, starts = np.unique(found, return_index=True)
    ends = np.append(starts[1:], len(found))[: len(starts)]
    for value, start, end in zip(numbers.tolist(), starts, ends, strict=True):
        of_rows, of_columns = rows[start:end], columns[start:end]
        if (value // _PER_CLASS or value) > _LAST_CLASS:
            raise ValueError(
                f"value {value} must be a class id of at most {_LAST_CLASS}, or one * {_PER_CLASS} + a number"
            )
        top, bottom = int(np.min(of_rows)), int(np.max(of_rows))
        left, right = int(np.min(of_columns)), int(np.max(of_columns))
        pixels = np.zeros((bottom - top + 1, right - left + 1), bool)
        pixels[of_rows - top, of_columns - left] = True
        yield value, Bitmap(pixels, top=top, left=left)
