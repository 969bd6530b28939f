"""Writes Pascal VOC's annotations: an XML file and two mask images for each image.

The format has no folders of images: all files have the names of the images alone. It is described in
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundImage, FoundObject
from mrcnn_jax.tool_formats.xml_text import xml_text

_VOID = 255  # the value of pixels that count for no object
_DATABASE = "The VOC format"  # to_coco counts pixels from 1, as VOC does, if it begins with "The VOC"
_LIST = "default"  # the name of the list of images; CVAT's and datumaro's


def write_voc(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes ``Annotations/``, ``SegmentationObject/``, ``SegmentationClass/`` and lists of the images.

    A pixel of ``SegmentationObject`` has the number of its object in the XML file, from 1, and of several
    objects the one with the highest score. Only the first 254 objects of an image have one, as a pixel is a
    byte; likewise categories. ``tolerance`` does not matter. The format has no scores. Raises ValueError for
    names that XML cannot hold.
    """
    del tolerance  # masks are exact
    if len(found.categories) >= _VOID:
        raise ValueError(f"Pascal VOC has at most {_VOID - 1} categories, here are {len(found.categories)}")
    palette = _palette()
    with (
        folder.open(f"ImageSets/Main/{_LIST}.txt") as all_images,
        folder.open(f"ImageSets/Segmentation/{_LIST}.txt") as with_masks,
    ):
        for image in found:
            found.leave_out_keypoints(image, "Pascal VOC")
            name = Path(image.name).stem
            with folder.open(f"Annotations/{name}.xml") as file:
                file.writelines(f"{line}\n" for line in _lines(image))
            all_images.write(f"{name}\n")
            if all(item.mask is None for item in image.objects):
                continue
            with_masks.write(f"{name}\n")
            if len(image.objects) >= _VOID:
                found.left_out[f"masks after the {_VOID - 1}th of an image: the boxes are kept"] += (
                    len(image.objects) - _VOID + 1
                )
            for kind, values in zip(("Object", "Class"), _masks(image), strict=True):
                picture = Image.fromarray(values)
                picture.putpalette(palette)
                with folder.open_bytes(f"Segmentation{kind}/{name}.png") as png:
                    picture.save(png, "PNG")
    with folder.open("labelmap.txt") as file:  # as CVAT and datumaro read it: colours of the classes
        file.write("# label:color_rgb:parts:actions\nbackground:0,0,0::\n")
        for label, name in enumerate(found.categories.names, start=1):
            colour = ",".join(map(str, palette[3 * label : 3 * label + 3]))
            file.write(f"{name.replace(':', ' ')}:{colour}::\n")


def _lines(image: FoundImage) -> Iterator[str]:
    height, width = image.size
    yield "<annotation>"
    yield f"  <filename>{xml_text(image.name)}</filename>"
    yield f"  <source><database>{_DATABASE}</database></source>"
    yield f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    yield f"  <segmented>{int(any(item.mask is not None for item in image.objects))}</segmented>"
    for item in image.objects:
        yield "  <object>"
        yield f"    <name>{xml_text(item.name)}</name>"
        yield "    <truncated>0</truncated><difficult>0</difficult>"
        x1, y1, x2, y2 = item.box
        first = {"xmin": math.floor(x1) + 1, "ymin": math.floor(y1) + 1}
        corners = first | {"xmax": math.ceil(x2), "ymax": math.ceil(y2)}  # the last pixel, from 1
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
        yield f"    <bndbox>{inner}</bndbox>"
        yield "  </object>"
    yield "</annotation>"


def _masks(image: FoundImage) -> tuple[np.ndarray, np.ndarray]:
    """The number of the object at each pixel, and the label of its category: uint8 ``[H W]``."""
    numbers, labels = np.zeros(image.size, np.uint8), np.zeros(image.size, np.uint8)
    numbered = list(enumerate(image.objects, start=1))[: _VOID - 1]
    for number, item in sorted(numbered, key=lambda pair: _score(pair[1])):
        if item.mask is not None:
            rows, columns = item.mask.mask.shape
            top, left = item.mask.top, item.mask.left
            part = np.s_[top : top + rows, left : left + columns]
            numbers[part][item.mask.mask] = number
            labels[part][item.mask.mask] = item.label
    return numbers, labels


def _score(item: FoundObject) -> float:
    return 0.0 if item.score is None else item.score


def _palette() -> list[int]:
    """VOC's colours: the bits of a value, from the lowest, are the highest bits of red, green and blue."""
    colours = []
    for value in range(256):
        for channel in range(3):
            bits = [(value >> (3 * place + channel)) & 1 for place in range(3)]
            colours.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return colours
