"""Finds files of untrusted folders, and reads their XML and text."""

import io
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image

from mrcnn_jax.channel_files import NPY_SUFFIX
from mrcnn_jax.image_formats import suffixes
from mrcnn_jax.images import read_file

# Names of the folders of datasets of masks, and of their images.
VOC_MASKS = "SegmentationObject"
MASK_FOLDERS = ("PedMasks", "masks", "labels", VOC_MASKS)
IMAGE_FOLDERS = ("PNGImages", "images", "imgs", "JPEGImages")
VOC_VOID = 255  # in SegmentationObject: the border of objects, and what is too difficult
# JPEG first: of several files of one name, it is the photograph.
IMAGE_SUFFIXES = (*sorted(suffixes(), key=lambda suffix: suffix not in (".jpg", ".jpeg")), NPY_SUFFIX)


def find_files(source: Path, suffixes: Iterable[str]) -> list[Path]:
    """The file ``source``, or the files with these suffixes in the folder and below, sorted; no hidden ones.

    Raises ValueError if there is no such file or folder.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: there is no such file or folder")
    wanted = tuple(suffixes)
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(wanted) and not name.startswith(".")
        ]
    return found


def find_images(folder: Path) -> list[Path]:
    """The images in the folder and below, sorted, as by ``find_files``.

    A .npy file is one only if no other image has its name: Ultralytics keeps decoded images so.
    """
    found = find_files(folder, IMAGE_SUFFIXES)
    others = {path.with_suffix("") for path in found if path.suffix.lower() != NPY_SUFFIX}
    return [path for path in found if path.suffix.lower() != NPY_SUFFIX or path.with_suffix("") not in others]


def find_folder(source: Path, name: str) -> Path | None:
    """The folder ``name`` in ``source``, or else one level below, if each archive was unpacked apart."""
    return next((path for path in (source / name, *sorted(source.glob(f"*/{name}"))) if path.is_dir()), None)


def image_names(images: Path, file: Path, name: PurePosixPath) -> list[str]:
    """Where an image that ``file`` calls ``name`` may be, relative to the folder ``images``, best first.

    Relative to the file, as the tools mean it; else in the folder itself, by its path or its name alone.
    """
    beside = os.path.relpath(os.path.abspath(file.parent / name), os.path.abspath(images))
    return [Path(beside).as_posix(), str(name), name.name]


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises ValueError for a file that is not XML, or that has a document type: only that can define entities,
    which may expand without bound or name other files. Raises OSError if it cannot be read.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("must not have a DOCTYPE")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except expat.ExpatError as error:
        raise ValueError(f"not valid XML: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file. Raises ValueError, naming it, if it cannot be read."""
    try:
        return read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text: {error}") from error


def read_mask(path: Path) -> np.ndarray:
    """The values of an image with one channel, integers ``[H W]``; of a palette image, the indices.

    Colour is accepted if all channels are equal, and transparency is left out. Raises ValueError, naming the
    file, for anything else.
    """
    data = read_file(path)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "TIFF", "BMP", "GIF"]) as image:
            values = np.asarray(image)
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise ValueError(f"{path}: cannot be read as a PNG, TIFF, BMP or GIF: {error}") from error
    if values.ndim == 3:
        colours = values[:, :, : 1 if values.shape[2] == 2 else 3]  # of gray, the second is transparency
        if not (colours == colours[:, :, :1]).all():
            raise ValueError(f"{path}: a mask must have one channel, or equal ones; this one has colours")
        values = colours[:, :, 0]
    if values.dtype.kind not in "biu":
        raise ValueError(f"{path}: the values of a mask must be integers, got {values.dtype}")
    return values.astype(np.int64)
