"""Reads folders of mask images: one per image with a value for each object, or one per object.

The masks of an image ``NAME.jpg``, by the name of the file in the folder of masks:

    NAME.png, NAME_mask.png     each value above 0 is an object (Penn-Fudan's PedMasks); in VOC's folder
                                SegmentationObject, 255 is the border of objects and none itself
    NAME_1.png, NAME_2.png ...  all pixels above 0 are one object
    NAME/ANYTHING.png           likewise

In a folder without ``images`` or ``masks``, each subfolder may have both, for one image (as in the Data
Science Bowl 2018).
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from mrcnn_jax.data.importers.builder import CocoBuilder, ImageFile
from mrcnn_jax.data.importers.files import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    VOC_MASKS,
    VOC_VOID,
    find_files,
    find_images,
    image_names,
    read_mask,
)
from mrcnn_jax.data.importers.regions import Bitmap

_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")  # formats that keep every value
_NUMBERED = re.compile(r"(?P<name>.+?)(?:[_-]mask)?[_-]\d+")
_MANY = 64  # values in one file; more, up to 255, are the soft edges of a picture of a mask


def add_masks(builder: CocoBuilder, source: Path, *, category: str | None) -> None:
    """Adds the images that have masks, and their objects, all of one ``category``.

    Raises ValueError if ``category`` is None, or if the folders of images and masks are not found.
    """
    if category is None:
        raise ValueError(f"{source}: masks do not say what the objects are; --category=NAME does")
    builder.declare_categories({category: 1})
    pairs = _pairs(builder, source)
    for image_path, whole, single in tqdm(pairs, unit="image", leave=False, disable=None):
        if not whole and not single:
            builder.leave_out("images without a mask: they may have objects")
            continue
        if len(whole) > 1 or (whole and single):
            listed = ", ".join(path.name for path in (*whole, *single)[:4])
            builder.problem(image_path, f"has masks by more than one naming rule: {listed}")
            continue
        image = builder.add_image(
            image_path, image_names(builder.images, image_path, PurePosixPath(image_path.name))
        )
        if image is None:
            continue
        unread = 0
        for path in (*whole, *single):
            try:
                _add_mask(builder, image, path, category, is_whole=bool(whole))
            except ValueError as error:
                builder.problem(path, str(error).removeprefix(f"{path}: "))
                unread += 1
        if unread == len(whole) + len(single):
            builder.remove_image(image)


def _add_mask(builder: CocoBuilder, image: ImageFile, path: Path, category: str, *, is_whole: bool) -> None:
    values = read_mask(path)
    if values.shape != image.size:
        raise ValueError(
            f"must have the size of image {image.file_name!r}, {image.size[1]} x {image.size[0]}, "
            f"got {values.shape[1]} x {values.shape[0]}"
        )
    if not is_whole:
        values = values != 0
        if not values.any():
            builder.leave_out("masks without a pixel above 0")
    found = np.unique(values[values > 0]).tolist()
    if len(found) > _MANY and found[-1] == 255:
        raise ValueError(
            f"has {len(found)} values up to 255, like a picture with soft edges; a mask has 0 outside the "
            "objects and a value of its own for each object"
        )
    void = VOC_VOID if is_whole and path.parent.name == VOC_MASKS else 0
    for value in found:
        if value == void:
            continue
        pixels = values == value
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        region = Bitmap(crop, top=int(rows[0]), left=int(columns[0]))
        builder.add_object(image, category, [region], file=path, entry=f"value {int(value)}")


def _pairs(builder: CocoBuilder, source: Path) -> list[tuple[Path, list[Path], list[Path]]]:
    """Each image with its files of many objects and its files of one."""
    masks = next((source / name for name in MASK_FOLDERS if (source / name).is_dir()), None)
    images = next((source / name for name in IMAGE_FOLDERS if (source / name).is_dir()), None)
    if builder.images.absolute() != source.absolute():  # --images
        images, masks = builder.images, masks or source
    if images is None or masks is None:
        if pairs := _pairs_of_subfolders(builder, source):
            return pairs
        folders = {"images": (images, IMAGE_FOLDERS), "masks": (masks, MASK_FOLDERS)}
        missing = [f"{kind} ({', '.join(names)})" for kind, (path, names) in folders.items() if path is None]
        raise ValueError(f"{source}: has no folder of {' and none of '.join(missing)}")
    image_files = find_images(images)
    by_name: dict[str, list[Path]] = {}
    for path in image_files:
        by_name.setdefault(path.stem, []).append(path)
    for name, same in by_name.items():
        if len(same) > 1:
            raise ValueError(
                f"{images}: {len(same)} images are called {name!r}, so their masks are ambiguous"
            )
    whole: dict[str, list[Path]] = {name: [] for name in by_name}
    single: dict[str, list[Path]] = {name: [] for name in by_name}
    for path in find_files(masks, _MASK_SUFFIXES):
        exact, numbered = re.sub(r"[_-]mask$", "", path.stem), _NUMBERED.fullmatch(path.stem)
        if path.parent != masks and path.parent.name in by_name:
            single[path.parent.name].append(path)
        elif path.stem in by_name or exact in by_name:
            whole[path.stem if path.stem in by_name else exact].append(path)
        elif numbered and numbered["name"] in by_name:
            single[numbered["name"]].append(path)
        else:
            builder.problem(path, f"there is no image for this mask in {images}")
    return [(path, whole[path.stem], single[path.stem]) for path in image_files]


def _pairs_of_subfolders(builder: CocoBuilder, source: Path) -> list[tuple[Path, list[Path], list[Path]]]:
    pairs: list[tuple[Path, list[Path], list[Path]]] = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        if not ((folder / "images").is_dir() and (folder / "masks").is_dir()):
            continue
        images: Sequence[Path] = find_images(folder / "images")
        if len(images) != 1:
            builder.problem(folder / "images", f"must have one image, got {len(images)}")
            continue
        pairs.append((images[0], [], find_files(folder / "masks", _MASK_SUFFIXES)))
    return pairs
