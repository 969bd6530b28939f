"""Input images and output paths of ``mrcnn-jax predict``."""

import contextlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from PIL import Image

from mrcnn_jax.image_formats import suffixes
from mrcnn_jax.image_names import image_names
from mrcnn_jax.json_files import read_json

DETECTIONS = "detections.json"
PICTURE_MARK = {"Software": "mrcnn_jax predict"}  # text chunk that identifies our own PNG files


def find_images(
    arguments: Sequence[str | Path], wanted: Sequence[str] | None = None
) -> tuple[list[Path], list[ValueError]]:
    """The images that ``arguments`` name, and an error for each argument without any.

    A file counts as an image, whatever its name. A folder stands for the images directly inside it, sorted by
    name: files that are not hidden and have one of the ``wanted`` suffixes, by default those of
    ``image_formats.suffixes``. ``passed_over`` says which files of a folder were left out.
    """
    images: list[Path] = []
    errors = []
    for path in map(Path, arguments):
        try:
            images += _images_at(path, wanted or suffixes())
        except ValueError as error:
            errors.append(error)
        except OSError as error:
            errors.append(ValueError(f"{path}: cannot be read: {error.strerror}"))
    return images, errors


def passed_over(arguments: Sequence[str | Path], wanted: Sequence[str] | None = None) -> str:
    """The number of files in folders that ``find_images`` leaves out for their suffix, by suffix.

    For example "passed over 4 files: .txt (2), .raw (1), without suffix (1)"; "" if there are none. Hidden
    files and folders within the folders are not counted, nor is what cannot be read.
    """
    counts: Counter[str] = Counter()
    for path in map(Path, arguments):
        with contextlib.suppress(OSError):
            if path.is_dir():
                _, others = _split(path, wanted or suffixes())
                counts.update(file.suffix.lower() or "without suffix" for file in others)
    return describe_passed_over(counts)


def describe_passed_over(counts: Counter[str]) -> str:
    """The sentence of ``passed_over`` about files that are counted by suffix; "" if there are none."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    number = "1 file" if counts.total() == 1 else f"{counts.total()} files"
    listed = ", ".join(f"{suffix} ({count})" for suffix, count in kinds)
    return f"passed over {number}: {listed}" if kinds else ""


def _images_at(path: Path, wanted: Sequence[str]) -> list[Path]:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    images, _ = _split(path, wanted)
    if not images:
        raise ValueError(f"{path}: no images in this folder; images end in {', '.join(wanted)}")
    return images


def _split(folder: Path, wanted: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The images and the other files of a folder, both sorted by name and without hidden files."""
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    images = [file for file in files if file.suffix.lower() in wanted]
    return images, [file for file in files if file.suffix.lower() not in wanted]


def picture_paths(images: Iterable[Path], output: Path) -> list[Path]:
    """A distinct path for each picture, ``output/photo.png`` for ``photo.jpg``: see ``output_paths``."""
    return output_paths(images, output, ".png", _is_picture)


def describe_earlier_pictures(output: Path, pictures: Iterable[Path]) -> str:
    """A sentence on pictures of earlier runs that stay in ``output`` beside ``pictures``; "" if none do."""
    ours = {path.name.lower() for path in pictures}
    others = (path for path in output.glob("*.png") if path.name.lower() not in ours)
    count = sum(map(_is_picture, others))
    number = "1 picture" if count == 1 else f"{count} pictures"
    return f"{output} has {number} of other images, by an earlier run; they are kept" if count else ""


def output_paths(
    images: Iterable[Path], output: Path, suffix: str, is_ours: Callable[[Path], bool]
) -> list[Path]:
    """A distinct path in ``output`` for a file that is written for each image, never one of ``images``.

    It has the image's name with another suffix. If the name is taken, ``photo-2.png``, ``photo-3.png`` and so
    on are tried. A name is taken by an earlier image, by an input, and by any existing file that is not ours.
    """
    images = list(images)
    # Lower case, because on some file systems Photo.png and photo.png are the same file.
    taken = {str(image.resolve()).lower() for image in images}
    paths = []
    for image in images:
        path, number = output / f"{image.stem}{suffix}", 1
        while (key := str(path.resolve()).lower()) in taken or (path.exists() and not is_ours(path)):
            number += 1
            path = output / f"{image.stem}-{number}{suffix}"
        taken.add(key)
        paths.append(path)
    return paths


def _is_picture(path: Path) -> bool:
    """Whether an earlier mrcnn-jax predict wrote this file."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.items() >= PICTURE_MARK.items()
    except (OSError, ValueError, SyntaxError):  # not an image, or a damaged one: not ours to replace
        return False


def read_image_ids(annotations: Path, images: Sequence[Path]) -> list[int]:
    """The COCO id of each image, looked up by ``file_name`` (``image_names``).

    A ``file_name`` matches an image whose path ends with it; the longest match wins. It may have "\\" for
    "/", surrounding spaces, and Unicode's composed form for the decomposed one or the reverse, as other
    systems write the same name. Raises ``ValueError``, naming the file, if it is not a COCO file, an id is
    not an integer, images are missing from it, an image has several ids, or several images have the same one.
    """
    content = read_json(annotations)
    try:
        ids: dict[str, list[Any]] = {}
        spellings: dict[str, set[str]] = {}
        for entry in content["images"]:
            for ending in image_names(entry):
                ids.setdefault(ending, []).append(entry["id"])
                spellings.setdefault(_spelling(ending), set()).add(ending)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{annotations}: not a COCO file: its 'images' must have 'file_name' and 'id': {error!r}"
        ) from error
    found: list[int] = []
    missing = []
    for image in images:
        if (name := _find_name(image, ids.keys(), spellings)) is None:
            missing.append(str(image))
            continue
        # Tables make whole floats of integers; from 2**53 on, these are not necessarily what was meant.
        if any(
            type(x) is not int and not (type(x) is float and x.is_integer() and abs(x) < 2**53)
            for x in ids[name]
        ):
            raise ValueError(f"{annotations}: image {name!r}: id must be an integer, got {ids[name][0]!r}")
        if len(set(ids[name])) > 1:
            raise ValueError(f"{annotations}: image {name!r} has several ids: {ids[name][:10]}")
        found.append(int(ids[name][0]))
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(f"{annotations}: {len(missing)} of {len(images)} images are not in it: {shown}")
    _check_distinct(annotations, images, found)
    return found


def _find_name(image: Path, names: Container[str], spellings: Mapping[str, Set[str]]) -> str | None:
    """The longest of ``names`` that the path ends with, exactly or else in another spelling.

    None if there is none, or several that are equal but for their spelling.
    """
    parts = image.absolute().parts
    for start in range(len(parts)):
        ending = "/".join(parts[start:])
        if ending in names:
            return ending
        if similar := spellings.get(_spelling(ending)):
            return next(iter(similar)) if len(similar) == 1 else None
    return None


def _spelling(name: str) -> str:
    """The name without the differences that another system makes."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).strip()


def _check_distinct(annotations: Path, images: Sequence[Path], ids: Sequence[int]) -> None:
    """Raises ValueError, naming the images, if several have the same id."""
    by_id: defaultdict[int, list[str]] = defaultdict(list)
    for image, image_id in zip(images, ids, strict=True):
        by_id[image_id].append(str(image))
    shared = [f"{image_id} for {' and '.join(names)}" for image_id, names in by_id.items() if len(names) > 1]
    if shared:
        raise ValueError(
            f"{annotations}: several images have the same id: {'; '.join(shared[:10])}; name each image "
            "once, and give the folders in 'file_name' if the names are equal"
        )
