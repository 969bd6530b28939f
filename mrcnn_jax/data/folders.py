"""Finds the annotations and images of a dataset's folder, whichever tool has laid it out."""

import contextlib
import dataclasses
import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mrcnn_jax.config import Config
from mrcnn_jax.data.file_names import ImageFolder
from mrcnn_jax.data.importers.recognise import recognise, what_it_looks_like
from mrcnn_jax.image_names import image_names

_SAMPLES = 5  # images of an annotation file that are looked for
_CHUNK = 1 << 20  # bytes that they are read from
_LISTED = 10  # files or folders in a message
_LAYOUTS = """\
    annotations/instances_train.json (and _val), images in train/, images/train/ or images/
    annotations/lvis_v1_train.json (and _val), images in train2017/ and val2017/     LVIS
    train/_annotations.coco.json (and valid/), beside the images       Roboflow
    annotations/instances_default.json, images in images/              CVAT
    result.json, images in images/                                     Label Studio
    labels.json, images in data/                                       FiftyOne
    one COCO file beside the images, or beside images/"""
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_NOT_OBJECTS = ("captions_", "panoptic_", "image_info_", "stuff_")


@dataclass(frozen=True)
class _Annotations:
    """A COCO file."""

    path: PurePosixPath  # relative to the dataset's folder
    split: str | None  # train, val or test, by its name or its folder's
    names: tuple[list[str], ...]  # what its first images may be called


def find_layout(folder: str | Path) -> dict[str, str]:
    """The data fields of the COCO dataset in a folder, for ``data.root`` being that folder.

    These are ``train_images`` and ``train_annotations``, with ``val_images`` and ``val_annotations`` if there
    is a validation set. Looks at all COCO files in the folder and one level below, and for the folder, up to
    two levels below, in which the first images of each file exist. A file whose name has none of the words
    train, val and test is the training set if it is the only one. Test sets are ignored.

    Raises ValueError if there is no training set, several are possible, or images are missing: the message
    lists what was found, and how to convert annotations of another format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    found = list(_annotation_files(folder))
    chosen = {split: _only(folder, found, split) for split in ("train", "val")}
    if chosen["train"] is None:
        chosen["train"] = _only(folder, found, None)
    if chosen["train"] is None:
        raise ValueError(_nothing_found(folder, found))
    folders = _folders(folder)
    fields, problems = {}, []
    for split, item in chosen.items():
        if item is None:
            continue
        try:
            fields[f"{split}_images"] = _image_folder(folder, item, folders)
            fields[f"{split}_annotations"] = str(item.path)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return fields


def with_layout(config: Config, folder: str | Path) -> Config:
    """``config`` for the dataset in a folder; without a validation set nothing is evaluated in training.

    Raises ValueError as ``find_layout`` does.
    """
    found = find_layout(folder)
    paths: dict[str, Any] = {"root": str(folder), **found}
    for name in ("train_records", "val_records", "train_keypoints", "val_keypoints"):
        paths[name] = ""
    data = dataclasses.replace(config.data, **paths)
    train = config.train
    if "val_annotations" not in found:
        train = dataclasses.replace(train, eval_every=0)
    return dataclasses.replace(config, data=data, train=train)


def is_coco(path: Path) -> bool:
    """Whether a file is in COCO's format, or any of a folder, of those that ``find_layout`` looks at."""
    if path.is_dir():
        return next(_annotation_files(path), None) is not None
    try:
        return _first_images(path) is not None
    except (OSError, ValueError):  # an empty file cannot be mapped into memory
        return False


def split_of(name: str) -> str | None:
    """The split, train, val or test, that is a word of a file's name, as in instances_val2017.json."""
    return _split(PurePosixPath(name))


def _only(folder: Path, found: list[_Annotations], split: str | None) -> _Annotations | None:
    """The annotations of a split; None if there are none. Raises ValueError if there are several."""
    fitting = [item for item in found if item.split == split]
    # Beside the objects, COCO has files of keypoints for the same images.
    fitting = [item for item in fitting if item.path.name.startswith("instances_")] or fitting
    if len(fitting) > 1:
        name = "without a split in their names" if split is None else f"of the {split} set"
        listed = ", ".join(str(item.path) for item in fitting[:_LISTED])
        raise ValueError(
            f"{folder}: there are {len(fitting)} COCO files {name}: {listed}; set data.train_annotations, "
            "data.train_images and those of val instead"
        )
    return fitting[0] if fitting else None


def _annotation_files(folder: Path) -> Iterator[_Annotations]:
    for path in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
        if path.name.startswith((".", *_NOT_OBJECTS)) or path.parent.name.startswith("."):
            continue
        try:
            if not path.is_file() or recognise(path) is not None:  # another tool's, or another list
                continue
            names = _first_images(path)
        except (OSError, ValueError):
            continue
        if names is not None:
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            yield _Annotations(relative, _split(relative), names)


def _first_images(path: Path) -> tuple[list[str], ...] | None:
    """The ``image_names`` of a COCO file's first images, without parsing the rest; None for other files."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = re.search(rb'"images"\s*:\s*\[', data)
        if not (start and re.search(rb'"annotations"\s*:', data) and re.search(rb'"categories"\s*:', data)):
            return None
        text = data[start.end() : start.end() + _CHUNK].decode("utf-8", "replace")
    names: list[list[str]] = []
    place, between, decoder = 0, re.compile(r"[\s,]*(?=\{)"), json.JSONDecoder()
    while len(names) < _SAMPLES and (match := between.match(text, place)):
        try:
            entry, place = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):  # cut off, or damaged: the reader of the dataset will say so
            break
        with contextlib.suppress(ValueError):  # an entry without a name
            names.append(image_names(entry))
    return tuple(names)


def _split(path: PurePosixPath) -> str | None:
    """The split that a file's name, or else its folder's, has as a word, as in instances_val2017."""
    for name in (path.stem, path.parent.name):
        words = re.findall(r"[a-z]+", name.lower())
        found = [split for split, names in _SPLITS.items() if set(words) & set(names)]
        if len(found) == 1:
            return found[0]
    return None


def _folders(folder: Path) -> list[PurePosixPath]:
    """The folder itself and those up to two levels below, relative to it."""
    found = [PurePosixPath(".")]
    for depth in range(2):
        for outer in [item for item in found if len(item.parts) == depth]:
            with os.scandir(folder / outer) as entries:
                names = sorted(
                    item.name for item in entries if item.is_dir() and not item.name.startswith(".")
                )
            found += [outer / name for name in names]
    return found


def _image_folder(folder: Path, annotations: _Annotations, folders: list[PurePosixPath]) -> str:
    """The folder in which all sampled images exist; of several, the one of the annotations' split."""
    if not annotations.names:
        raise ValueError(f"{folder / annotations.path}: has no images with a file_name")
    exact = [names[:1] for names in annotations.names]  # LVIS's images lie in several folders of one
    fitting = [inner for inner in folders if _holds(folder / inner, exact)]
    fitting = fitting or [inner for inner in folders if _holds(folder / inner, annotations.names)]
    if len(fitting) > 1 and annotations.split is not None:
        of_split = [inner for inner in fitting if annotations.split in map(split_of, inner.parts)]
        same_word = [inner for inner in of_split if annotations.path.stem.endswith(f"_{inner.name}")]
        fitting = same_word or of_split or fitting
    if len(fitting) == 1:
        return str(fitting[0])
    if fitting:
        listed = ", ".join(map(str, fitting[:_LISTED]))
        raise ValueError(
            f"{folder / annotations.path}: its images are in {len(fitting)} folders: {listed}; set "
            f"data.{annotations.split or 'train'}_images instead"
        )
    listed = ", ".join(map(str, folders[:_LISTED])) + (", ..." if len(folders) > _LISTED else "")
    raise ValueError(
        f"{folder / annotations.path}: its first images, such as {annotations.names[0][0]!r}, are in none of "
        f"the folders: {listed}"
    )


def _holds(folder: Path, names: Sequence[list[str]]) -> bool:
    """Whether the folder has all images, as the reader of the dataset will look for them."""
    images = ImageFolder(folder)
    try:
        return all(images.has(images.find_any(of_image)[1]) for of_image in names)
    except ValueError:  # a name that leads out of the folder
        return False


def _nothing_found(folder: Path, found: list[_Annotations]) -> str:
    files = [str(item.path) for item in found] or ["none"]
    looks = what_it_looks_like(folder)
    return (
        f"{folder}: there is no training set in COCO's format"
        + (f"; it {looks}" if looks else "")
        + f"\nCOCO files found: {', '.join(files[:_LISTED])}\nLayouts that are recognised:\n{_LAYOUTS}"
    )
