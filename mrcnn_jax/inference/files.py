"""Which images to predict on, and where the pictures and numbers go."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mrcnn_jax.json_files import read_json

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def find_images(arguments: Sequence[str | Path]) -> list[Path]:
    """The files among ``arguments``, and in place of each folder the images directly in it, sorted by name.

    Images are told by their suffix; hidden files are left out. Raises ``ValueError`` for a folder without
    any. A file that does not exist is returned like the others: whoever reads it reports it.
    """
    images = []
    for path in map(Path, arguments):
        if not path.is_dir():
            images.append(path)
            continue
        inside = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        if not inside:
            raise ValueError(
                f"{path}: there is no image in this folder; images end in {', '.join(IMAGE_SUFFIXES)}"
            )
        images += inside
    return images


def picture_paths(images: Iterable[Path], output: Path) -> list[Path]:
    """``output/photo.png`` for each ``photo.jpg``, no two the same and none of them one of ``images``.

    Where that name is taken, by a picture before it or by an input, it is ``photo-2.png``, ``photo-3.png``
    and so on.
    """
    images = list(images)
    # In lower case: on some file systems Photo.png and photo.png are the same file.
    taken = {str(image.resolve()).lower() for image in images}
    paths = []
    for image in images:
        path, number = output / f"{image.stem}.png", 1
        while (key := str(path.resolve()).lower()) in taken:
            number += 1
            path = output / f"{image.stem}-{number}.png"
        taken.add(key)
        paths.append(path)
    return paths


def read_image_ids(annotations: Path, images: Sequence[Path]) -> list[int]:
    """The id of each image in a COCO file, by ``file_name``.

    A ``file_name`` fits an image whose path ends with it; if several do, the longest is taken. Raises
    ``ValueError`` naming the file and what is wrong: not a COCO file, or images that are not in it.
    """
    content = read_json(annotations)
    try:
        ids = {entry["file_name"]: entry["id"] for entry in content["images"]}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{annotations}: not a COCO file, whose 'images' have 'file_name' and 'id': {error!r}"
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
