"""Reads YOLO's annotations: one text file per image, with a line per box or polygon.

Format: https://docs.ultralytics.com/datasets/segment/, .../detect/ and .../pose/. Coordinates are shares of
the image's width and height: ``category x y width height`` of a box by its centre, or ``category x1 y1 x2 y2
x3 y3 ...``. With ``kpt_shape`` in ``data.yaml`` the keypoints follow a box: ``x y``, or ``x y visibility``.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder, Keypoints
from mrcnn_jax.data.importers.files import IMAGE_SUFFIXES, find_images, image_names, read_lines
from mrcnn_jax.data.importers.regions import Region, polygon, rectangle
from mrcnn_jax.yaml_files import parse_yaml

_SPLITS = ("train", "val", "test")
_CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_MOST_KEYPOINTS = 10_000
_SLACK = 0.01  # by which coordinates may leave the image, as a share of its side (as in Ultralytics)


@dataclass(frozen=True)
class _Dataset:
    """What ``data.yaml`` says."""

    names: dict[int, str]
    splits: dict[str, list[str]]  # folders or lists of images
    keypoint_shape: tuple[int, int] = 0, 3  # keypoints per object, after the box, and numbers of each
    keypoint_names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by category, if given
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
    numbered = [f"keypoint_{number}" for number in range(1, dataset.keypoint_shape[0] + 1)]
    folders: dict[Path, Path] = {}  # of images, by that of their labels
    for image_path in tqdm(images, unit="image", leave=False, disable=None):
        labels = _labels_of(root, image_path, builder.images)
        folders[labels.parent] = image_path.parent
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
            builder.remove_image(image)
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
                category, values, points = _read_line(words, dataset)
                region = _region(values, height=image.size[0], width=image.size[1])
                names = dataset.keypoint_names.get(category, numbered)
                keypoints = _keypoints(points, names, height=image.size[0], width=image.size[1])
            except ValueError as error:
                builder.problem(labels, f"{entry}: {error}")
                continue
            if keypoints:
                builder.declare_keypoints(category, names)
            builder.add_object(image, category, [region], file=labels, entry=entry, keypoints=keypoints)
    _report_unused(builder, folders)


def _report_unused(builder: CocoBuilder, folders: dict[Path, Path]) -> None:
    """Adds a finding for each label file without an image, of this split or another, in folders of labels."""
    for folder, images in sorted(folders.items()):
        if "labels" in folder.parts and folder.is_dir():
            names = {path.stem for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
            for path in sorted(folder.glob("*.txt")):
                if path.stem not in names and path.name != "classes.txt":
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
    folder = content.get("path")
    folder = folder if isinstance(folder, str) else ""
    names = _distinct(path, {key: str(name) for key, name in names.items()})
    return _Dataset(names, splits, *_read_keypoints(content, names, path), folder)


def _read_keypoints(
    content: dict, categories: Mapping[int, str], path: Path
) -> tuple[tuple[int, int], dict[str, list[str]]]:
    """The shape of an object's keypoints, and their names by category, where ``kpt_names`` has them."""
    shape = content.get("kpt_shape")
    if shape is None:
        return (0, 3), {}
    numbers = [fields.as_integer(number) or 0 for number in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or not 1 <= numbers[0] <= _MOST_KEYPOINTS or numbers[1] not in (2, 3):
        rule = f"the number of keypoints, 1 to {_MOST_KEYPOINTS}, and 2 or 3 numbers of each"
        raise fields.error(str(path), "kpt_shape", rule, shape)
    count, size = numbers
    given = content.get("kpt_names") or {}
    given = dict(enumerate(given)) if isinstance(given, list) else given
    for value in given.values() if isinstance(given, dict) else [given]:
        is_list = isinstance(value, list) and len(value) == count
        if not is_list or len({str(name) for name in value}) < count:
            raise fields.error(str(path), "kpt_names", f"{count} distinct names for each category", value)
    names = {categories[key]: list(map(str, value)) for key, value in given.items() if key in categories}
    return (count, size), names


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


def _read_line(words: list[str], dataset: _Dataset) -> tuple[str, list[float], list[list[float]]]:
    """The category, the numbers of a box or polygon, and those of each keypoint."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise fields.error("", "all words", "numbers", " ".join(words)) from None
    category, *values = numbers
    if not category.is_integer():
        raise fields.error("", "the category", "a whole number", words[0])
    if int(category) not in dataset.names:
        raise ValueError(f"category {int(category)} is not among the {len(dataset.names)} names")
    count, size = dataset.keypoint_shape
    points: list[list[float]] = []
    if count and len(values) == 4 + count * size:
        points = [values[at : at + size] for at in range(4, len(values), size)]
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        rule = "a category and 4 numbers (a box) or at least 6 in pairs (a polygon)"
        raise fields.error("", "a line", rule, " ".join(words))
    if _outside(values, _SLACK):
        raise fields.error("", "coordinates", "shares of the image's sides, 0 to 1", _outside(values, 0))
    return dataset.names[int(category)], values, points


def _region(values: list[float], *, height: int, width: int) -> Region:
    if len(values) == 4:
        x, y, w, h = values
        corners = [[(x - w / 2) * width, (y - h / 2) * height], [(x + w / 2) * width, (y + h / 2) * height]]
        return rectangle(corners)
    return polygon([[x * width, y * height] for x, y in zip(values[::2], values[1::2], strict=True)])


def _keypoints(points: list[list[float]], names: Sequence[str], *, height: int, width: int) -> Keypoints:
    """The labelled keypoints. Of two numbers, those are that are not both 0."""
    found = {}
    for name, (x, y, *rest) in zip(names, points, strict=False):  # a box may come without any
        visibility = rest[0] if rest else 2 * bool(x or y)
        if visibility not in (0, 1, 2):
            raise fields.error("", "the visibility of a keypoint", "0, 1 or 2", visibility)
        if visibility:
            if outside := _outside([x, y], _SLACK):
                raise fields.error("", "keypoints", "shares of the image's sides, 0 to 1", outside)
            found[name] = x * width, y * height, int(visibility)
    return found


def _outside(values: Iterable[float], slack: float) -> list[Any]:
    return [value for value in values if not -slack <= value <= 1 + slack]
