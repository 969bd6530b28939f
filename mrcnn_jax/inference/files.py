"""Input images and output paths of ``mrcnn-jax predict``."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from mrcnn_jax.json_files import read_json

DETECTIONS = "detections.json"
PICTURE_MARK = {"Software": "mrcnn_jax predict"}  # text chunk that identifies our own PNG files
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def find_images(arguments: Sequence[str | Path]) -> tuple[list[Path], list[ValueError]]:
    """The images that ``arguments`` name, and an error for each argument without any.

    A file counts as an image, whatever its name. A folder stands for the images directly inside it, sorted by
    name: files that are not hidden and have a suffix of ``IMAGE_SUFFIXES``.
    """
    images: list[Path] = []
    errors = []
    for path in map(Path, arguments):
        try:
            images += _images_at(path)
        except ValueError as error:
            errors.append(error)
        except OSError as error:
            errors.append(ValueError(f"{path}: cannot be read: {error.strerror}"))
    return images, errors


def _images_at(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    inside = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not inside:
        raise ValueError(f"{path}: no images in this folder; images end in {', '.join(IMAGE_SUFFIXES)}")
    return inside


def picture_paths(images: Iterable[Path], output: Path) -> list[Path]:
    """A distinct path for each picture, ``output/photo.png`` for ``photo.jpg``, never one of ``images``.

    If the name is taken, ``photo-2.png``, ``photo-3.png`` and so on are tried. A name is taken by an earlier
    picture, by an input, and by any existing file that does not carry ``PICTURE_MARK``.
    """
    images = list(images)
    # Lower case, because on some file systems Photo.png and photo.png are the same file.
    taken = {str(image.resolve()).lower() for image in images}
    paths = []
    for image in images:
        path, number = output / f"{image.stem}.png", 1
        while (key := str(path.resolve()).lower()) in taken or (path.exists() and not _is_picture(path)):
            number += 1
            path = output / f"{image.stem}-{number}.png"
        taken.add(key)
        paths.append(path)
    return paths


def _is_picture(path: Path) -> bool:
    """Whether an earlier mrcnn-jax predict wrote this file."""
    try:
        with Image.open(path) as image:
            return image.info.items() >= PICTURE_MARK.items()
    except (OSError, ValueError, SyntaxError):  # not an image, or a damaged one: not ours to replace
        return False


def read_image_ids(annotations: Path, images: Sequence[Path]) -> list[int]:
    """The COCO id of each image, looked up by ``file_name``.

    A ``file_name`` matches an image whose path ends with it; the longest match wins. Raises ``ValueError``,
    naming the file, if it is not a COCO file, an id is not an integer, or images are missing from it.
    """
    content = read_json(annotations)
    try:
        ids = {entry["file_name"]: entry["id"] for entry in content["images"]}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{annotations}: not a COCO file: its 'images' must have 'file_name' and 'id': {error!r}"
        ) from error
    found: list[int] = []
    missing = []
    for image in images:
        endings = ("/".join(image.absolute().parts[start:]) for start in range(len(image.absolute().parts)))
        name = next((ending for ending in endings if ending in ids), None)
        if name is None:
            missing.append(str(image))
        elif type(ids[name]) is not int:
            raise ValueError(f"{annotations}: image {name!r}: id must be an integer, got {ids[name]!r}")
        else:
            found.append(ids[name])
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(f"{annotations}: {len(missing)} of {len(images)} images are not in it: {shown}")
    return found
