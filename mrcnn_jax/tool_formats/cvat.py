"""Writes ``annotations.xml``, CVAT's own format "CVAT for images 1.1", to upload as annotations of a task.

Format: https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
"""

from collections.abc import Iterator

import numpy as np

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.polygons import outlines
from mrcnn_jax.tool_formats.xml_text import xml_text


def write_cvat(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes the file, whose labels must exist in the task; CVAT finds its images by their names.

    An object is a polygon, a mask if it has holes or several parts, or a box if it has no mask. The score is
    the attribute ``score``, which CVAT drops unless the label has one of that name. Raises ValueError for
    names that XML cannot hold.
    """
    with folder.open("annotations.xml") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        labels = "".join(map(_label, found.categories.names))
        file.write(f"  <meta><task><labels>\n{labels}  </labels></task></meta>\n")
        for number, image in enumerate(found):
            height, width = image.size
            size = f'width="{width}" height="{height}"'
            file.write(f'  <image id="{number}" name="{xml_text(image.name)}" {size}>\n')
            for item in image.objects:
                file.writelines(f"    {line}\n" for line in _shape(item, tolerance))
            file.write("  </image>\n")
        file.write("</annotations>\n")


def _label(name: str) -> str:
    """The declaration of a label. CVAT takes those of the task; datumaro, for one, needs it."""
    attribute = "<name>score</name><mutable>False</mutable><input_type>text</input_type>"
    attributes = f"<attributes><attribute>{attribute}</attribute></attributes>"
    return f"    <label><name>{xml_text(name)}</name>{attributes}</label>\n"


def _shape(item: FoundObject, tolerance: float) -> Iterator[str]:
    kind, values = _geometry(item, tolerance)
    attributes = {"label": item.name, "source": "auto", "occluded": "0", **values, "z_order": "0"}
    written = " ".join(f'{name}="{xml_text(value)}"' for name, value in attributes.items())
    yield f"<{kind} {written}>"
    if item.score is not None:
        yield f'  <attribute name="score">{item.score:.6g}</attribute>'
    yield f"</{kind}>"


def _geometry(item: FoundObject, tolerance: float) -> tuple[str, dict[str, str]]:
    """The name of the element, and its attributes."""
    if item.mask is None:
        names = ("xtl", "ytl", "xbr", "ybr")
        return "box", {name: f"{value:.2f}" for name, value in zip(names, item.box, strict=True)}
    polygons = outlines(item.mask, tolerance)
    if len(polygons) == 1:
        return "polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in polygons[0].tolist())}
    height, width = item.mask.mask.shape
    place = {"left": item.mask.left, "top": item.mask.top, "width": width, "height": height}
    return "mask", {"rle": ", ".join(map(str, _runs(item.mask))), **{k: str(v) for k, v in place.items()}}


def _runs(mask: PastedMask) -> list[int]:
    """The lengths of the crop's runs of 0, 1, 0, ... row by row; the first may be 0."""
    pixels = np.concatenate([[False], mask.mask.ravel()])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.diff(edges, prepend=0, append=mask.mask.size).tolist()
