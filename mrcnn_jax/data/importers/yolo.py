"""Reads YOLO's annotations: one text file per image, with a line per box or polygon.

Format: https://docs.ultralytics.com/datasets/segment/ and .../detect/. Coordinates are shares of the image's
width and height: ``category x y width height`` of a box by its centre, or ``category x1 y1 x2 y2 x3 y3 ...``.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder
from mrcnn_jax.data.importers.files import find_images, image_names, read_lines
from mrcnn_jax.data.importers.regions import Region, polygon, rectangle
from mrcnn_jax.yaml_files import parse_yaml

_SPLITS = ("train", "val", "test")
_CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_SLACK = 0.01  # by which coordinates may leave the image, as a share of its side (as in Ultralytics)


@dataclass(frozen=True)
class _Dataset:
    """What ``data.yaml`` says."""

    names: dict[int, str]
    splits: dict[str, list[str]]  # folders or lists of images
    keypoint_numbers: int = 0  # per object, after the box
    folder: str = ""  # that the splits are relative to, as far as it exists


def add_yolo(builder: CocoBuilder, source: Path, *, split: str | None) -> None:
    """Adds the images and objects of a folder with ``data.yaml`` (or of that file), or with ``classes.txt``.

    An image without a label file has no objects, as in Ultralytics. Raises ValueError if the categories
    or the images cannot be found, or if ``split`` is not one that ``data.yaml`` lists, or missing though it
    lists several.
    """
    root = source if source.is_dir() else source.parent
    dataset = _read_dataset(source)
    builder.declare_categories({name: key + 1 for key, name in dataset.names.items()})
    images = _find_images(builder, root, dataset, split)
    seen = set()
    for image_path in tqdm(images, unit="image", leave=False, disable=None):
        labels = _labels_of(root, image_path, builder.images)
        seen.add(labels)
        image = builder.add_image(
            image_path, image_names(builder.images, image_path, PurePosixPath(image_path.name))
        )
        if image is None:
            continue
        if not labels.is_file():
            builder.leave_out("label files that do not exist: their images are kept, without objects")
            continue
        try:
            lines = [line.split() for line in read_lines(labels)]
        except ValueError as error:
            builder.problem(labels, str(error).removeprefix(f"{labels}: "))
            continue
        known: set[tuple[str, ...]] = set()
        for number, words in enumerate(lines, start=1):
            if not words:
                continue
            if tuple(words) in known:
                builder.leave_out("lines that repeat another of the same file")
                continue
            known.add(tuple(words))
            entry = f"line {number}"
            try:
                category, region = _read_line(words, dataset, height=image.size[0], width=image.size[1])
            except ValueError as error:
                builder.problem(labels, f"{entry}: {error}")
                continue
            if dataset.keypoint_numbers:
                builder.leave_out("sets of keypoints: not supported; the boxes are kept")
            builder.add_object(image, category, [region], file=labels, entry=entry)
    _report_unused(builder, seen)


def _report_unused(builder: CocoBuilder, labels: set[Path]) -> None:
    """Adds a finding for each label file without an image, in the folders that have only labels."""
    for folder in sorted({path.parent for path in labels}):
        if "labels" in folder.parts and folder.is_dir():
            for path in sorted(folder.glob("*.txt")):
                if path not in labels and path.name != "classes.txt":
                    builder.problem(path, "there is no image of this name")


def _read_dataset(source: Path) -> _Dataset:
    """The categories and splits of a folder or a YAML file."""
    if source.is_file():
        return _read_yaml(source)
    found = sorted((*source.glob("*.yaml"), *source.glob("*.yml")))
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise ValueError(f"{source}: has several YAML files ({listed}); give the one that describes the data")
    if found:
        return _read_yaml(found[0])
    for name in _CLASS_FILES:
        if (path := source / name).is_file():
            names = [line.strip() for line in read_lines(path) if line.strip()]
            return _Dataset(_distinct(path, dict(enumerate(names))), {})
    raise ValueError(
        f"{source}: the names of the categories are missing: there is neither data.yaml nor one of "
        f"{', '.join(_CLASS_FILES)}"
    )


def _read_yaml(path: Path) -> _Dataset:
    content = parse_yaml("\n".join(read_lines(path)), path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(type(key) is int and key >= 0 for key in names):
        raise fields.error(str(path), "names", "a list of categories, or their names by number", names)
    splits: dict[str, list[str]] = {}
    for split in _SPLITS:
        value = content.get(split) or (content.get("valid") if split == "val" else None)
        entries = value if isinstance(value, list) else [value] if value else []
        for entry in entries:
            splits.setdefault(split, []).append(fields.text({split: entry}, split, str(path)))
    shape = content.get("kpt_shape")
    count = 0
    if shape is not None:
        if not (fields.is_numbers(shape) and len(shape) == 2):
            raise fields.error(str(path), "kpt_shape", "two numbers", shape)
        count = int(shape[0] * shape[1])
    folder = content.get("path")
    folder = folder if isinstance(folder, str) else ""
    return _Dataset(_distinct(path, {key: str(name) for key, name in names.items()}), splits, count, folder)


def _distinct(path: Path, names: dict[int, str]) -> dict[int, str]:
    if not names or len(set(names.values())) < len(names):
        raise fields.error(
            str(path), "names of the categories", "distinct, and at least one", list(names.values())
        )
    return names


def _find_images(builder: CocoBuilder, root: Path, dataset: _Dataset, split: str | None) -> list[Path]:
    """The image files of the split; without splits, those of ``images/`` or else of the folder of images."""
    if not dataset.splits:
        if split is not None:
            folder = f"images/{split}"
            if not (root / folder).is_dir():
                raise ValueError(
                    f"--split={split}: there is no data.yaml with splits, and no {root / folder}"
                )
            return find_images(root / folder)
        inner = builder.images / "images"
        return _not_empty(inner if inner.is_dir() else builder.images)
    if split is None:
        if len(dataset.splits) > 1:
            raise ValueError(
                f"{root}: has the splits {', '.join(dataset.splits)}; choose one, as --split=train"
            )
        (split,) = dataset.splits
    if split not in dataset.splits:
        raise ValueError(f"--split={split}: the splits in data.yaml are {', '.join(dataset.splits)}")
    found: list[Path] = []
    for entry in dataset.splits[split]:
        path = _resolve(root, dataset.folder, entry)
        if path.suffix == ".txt":
            listed = [line.strip() for line in read_lines(path) if line.strip()]
            found += [_resolve(path.parent, "", line, within=root) for line in listed]
        else:
            found += _not_empty(path)
    return list(dict.fromkeys(found))


def _not_empty(folder: Path) -> list[Path]:
    images = find_images(folder)
    if not images:
        raise ValueError(f"{folder}: there are no images")
    return images


def _resolve(root: Path, folder: str, entry: str, *, within: Path | None = None) -> Path:
    """The file or folder that an entry of ``data.yaml`` means: inside ``within``, by default ``root``.

    Exporters write paths of other machines, or ``../train/images`` for ``train/images``, as Ultralytics reads
    it.
    """
    within = root if within is None else within
    entry = entry.replace("\\", "/")
    stripped = entry
    while stripped.startswith(("../", "./")):
        stripped = stripped.partition("/")[2]
    candidates = [root / folder / entry, root / entry, root / folder / stripped, root / stripped]
    base = os.path.abspath(within)
    for candidate in candidates:
        path = os.path.abspath(candidate)
        if os.path.exists(path) and (path == base or path.startswith(base.rstrip(os.sep) + os.sep)):
            return within / os.path.relpath(path, base)
    raise ValueError(f"{within}: {entry!r} of data.yaml is not inside this folder, or does not exist")


def _labels_of(root: Path, image: Path, images: Path) -> Path:
    """The label file: in ``labels`` where the image is in ``images``, the last one; else beside it.

    For images outside ``root``, in the folder ``images`` that the user named, in ``labels`` of ``root``.
    """
    if not image.is_relative_to(root):
        return (root / "labels" / image.relative_to(images)).with_suffix(".txt")
    parts = list(image.relative_to(root).parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return (root / Path(*parts)).with_suffix(".txt")


def _read_line(words: list[str], dataset: _Dataset, *, height: int, width: int) -> tuple[str, Region]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise fields.error("", "all words", "numbers", " ".join(words)) from None
    category, *values = numbers
    if not category.is_integer():
        raise fields.error("", "the category", "a whole number", words[0])
    if int(category) not in dataset.names:
        raise ValueError(f"category {int(category)} is not among the {len(dataset.names)} names")
    if dataset.keypoint_numbers and len(values) == 4 + dataset.keypoint_numbers:
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        rule = "a category and 4 numbers (a box) or at least 6 in pairs (a polygon)"
        raise fields.error("", "a line", rule, " ".join(words))
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
        raise fields.error("", "coordinates", "shares of the image's sides, 0 to 1", _outside(values))
    name = dataset.names[int(category)]
    if len(values) == 4:
        x, y, w, h = values
        corners = [[(x - w / 2) * width, (y - h / 2) * height], [(x + w / 2) * width, (y + h / 2) * height]]
        return name, rectangle(corners)
    return name, polygon([[x * width, y * height] for x, y in zip(values[::2], values[1::2], strict=True)])


def _outside(values: Iterable[float]) -> list[Any]:
    return [value for value in values if not 0 <= value <= 1]
