"""Reads Pascal VOC's annotations: one XML file per image, and masks in ``SegmentationObject/``.

Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf. Many tools write its boxes.
"""

from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np
from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder
from mrcnn_jax.data.importers.files import (
    IMAGE_SUFFIXES,
    VOC_MASKS,
    VOC_VOID,
    find_files,
    image_names,
    read_lines,
    read_mask,
    read_xml,
)
from mrcnn_jax.data.importers.regions import Bitmap, Rectangle, Region, polygon, rectangle
from mrcnn_jax.images import Size

_FLAGS = ("difficult", "truncated", "occluded")


def add_voc(builder: CocoBuilder, source: Path, *, split: str | None) -> None:
    """Adds the images and objects of an XML file, or of all in a folder and below, or those of a ``split``.

    A split is the name of a list in ``ImageSets/``: ``Main/train``, or ``train`` alone, which prefers
    ``Segmentation/train``. Raises ValueError if there is no such list, or no XML file.
    """
    root = dataset_folder(source)
    annotations = source / "Annotations" if (source / "Annotations").is_dir() else source
    if split is None:
        files = find_files(annotations, (".xml",))
    else:
        files = [annotations / f"{name}.xml" for name in _read_split(root, split)]
    if not files:
        raise ValueError(f"{annotations}: there is no XML file")
    for path in tqdm(files, unit="file", leave=False, disable=None):
        try:
            element = read_xml(path)
            if element.tag != "annotation":
                raise ValueError(f"the root must be <annotation>, got <{element.tag}>")
            _add_file(builder, root, path, element)
        except OSError as error:
            builder.problem(path, f"cannot be read: {error.strerror}")
        except ValueError as error:
            builder.problem(path, str(error))


def dataset_folder(source: Path) -> Path:
    """The folder with ``Annotations/``, or else with the XML files, that ``source`` is or is in."""
    folder = source if source.is_dir() else source.parent
    return folder.parent if folder.name == "Annotations" else folder


def _read_split(source: Path, split: str) -> list[str]:
    relative = PurePosixPath(split)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"--split={split}: must be the name of a list in {source / 'ImageSets'}")
    tried = [source / "ImageSets" / folder / f"{split}.txt" for folder in ("", "Segmentation", "Main")]
    for path in tried:
        if path.is_file():
            names = [line.split()[0] for line in read_lines(path) if line.strip()]
            for name in names:
                if PurePosixPath(name).name != name:
                    raise fields.error(str(path), "a line", "the name of an image", name)
            return names
    raise ValueError(f"--split={split}: there is no {', '.join(map(str, tried))}")


def _add_file(builder: CocoBuilder, root: Path, path: Path, annotation: Element) -> None:
    name = PurePosixPath((annotation.findtext("filename") or f"{path.stem}.jpg").strip().replace("\\", "/"))
    names = image_names(builder.images, path, name)
    for suffix in IMAGE_SUFFIXES:  # tools leave the name as it was when the files are renamed
        names += image_names(builder.images, path, PurePosixPath(path.stem + suffix))[::2]
    image = builder.add_image(path, names, size=_read_size(annotation))
    if image is None:
        return
    masks = root / VOC_MASKS / f"{path.stem}.png"
    try:
        values = _read_masks(masks, image.size) if masks.is_file() else None
    except ValueError:
        builder.remove_image(image)
        raise
    # In VOC itself the pixels are numbered from 1, and the last one belongs to the box.
    is_original = (annotation.findtext("source/database") or "").startswith("The VOC")
    for index, element in enumerate(annotation.findall("object")):
        entry = f"object[{index}]"
        try:
            category = (element.findtext("name") or "").strip()
            if not category:
                raise ValueError("<name> is missing")
            region = _read_region(element, float(is_original))
            if values is not None:
                region = _mask_of(values, index + 1, region, masks)
        except ValueError as error:
            builder.problem(path, f"{entry}: {error}")
            continue
        for flag in _FLAGS:
            if (element.findtext(flag) or "0").strip() not in ("0", "Unspecified"):
                builder.leave_out(f"flags {flag!r}: COCO's format has none; the objects are kept")
        builder.add_object(image, category, [region], file=path, entry=entry)


def _read_masks(path: Path, size: Size) -> np.ndarray:
    values = read_mask(path)
    if values.shape != size:
        rule = f"must have the size of the image, {size[1]} x {size[0]}"
        raise ValueError(f"{path}: {rule}, got {values.shape[1]} x {values.shape[0]}")
    return values


def _read_size(annotation: Element) -> Size | None:
    """Height and width as the file states them; None if it does not, or as some tools do states 0."""
    texts = annotation.findtext("size/height"), annotation.findtext("size/width")
    height, width = (_number(text or "0", "size") for text in texts)
    return (int(height), int(width)) if height and width else None


def _read_region(element: Element, offset: float) -> Region:
    """The polygon, as Roboflow writes it, or else the box."""
    points = element.find("polygon")
    if points is not None and len(points):
        numbers = [_number(child.text, child.tag) for child in points]
        if len(numbers) % 2:
            raise ValueError(f"<polygon> must have an even number of coordinates, got {len(numbers)}")
        return polygon(list(zip(numbers[::2], numbers[1::2], strict=True)))
    box = element.find("bndbox")
    if box is None:
        raise ValueError("<bndbox> is missing")
    x1, y1, x2, y2 = (_number(box.findtext(tag), tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    if x1 - offset >= x2 or y1 - offset >= y2:
        raise ValueError(f"<bndbox> must have xmin < xmax and ymin < ymax, got {x1:g} {y1:g} {x2:g} {y2:g}")
    return rectangle([[x1 - offset, y1 - offset], [x2, y2]])


def _number(text: str | None, tag: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= 1e9:
        raise fields.error("", f"<{tag}>", "a number", text)
    return value


def _mask_of(values: np.ndarray, value: int, region: Region, file: Path) -> Region:
    """The pixels of an object, which has the ``value`` of its place in the XML; its box if there are none."""
    pixels = values == value
    if value >= VOC_VOID or not pixels.any():
        return region
    if isinstance(region, Rectangle):
        rows = slice(max(0, int(region.y1)), max(0, int(region.y2) + 1))
        columns = slice(max(0, int(region.x1)), max(0, int(region.x2) + 1))
        if 2 * pixels[rows, columns].sum() < pixels.sum():
            raise ValueError(f"most pixels of value {value} in {file} are outside its <bndbox>")
    return Bitmap(pixels, top=0, left=0)
