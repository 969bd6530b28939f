"""Writes ``annotations.xml``, CVAT's own format "CVAT for images 1.1", to upload as annotations of a task.

Format: https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.polygons import outlines
from mrcnn_jax.tool_formats.xml_text import xml_text

_OF_SKELETON = "_skeleton"  # what follows the category's name in the label of its skeletons


def write_cvat(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes the file, whose labels must exist in the task; CVAT finds its images by their names.

    An object is a polygon, a mask if it has holes or several parts, or a box if it has no mask. The score is
    the attribute ``score``, which CVAT drops unless the label has one of that name. Keypoints are a skeleton
    of the same ``group_id``. Raises ValueError for names that XML cannot hold.
    """
    skeletons = _skeleton_labels(found.categories)
    groups = itertools.count(1)  # through all images, as in CVAT's own files
    with folder.open("annotations.xml") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        labels = "".join(map(_label, found.categories.names))
        labels += "".join(_skeleton_declaration(name, found.categories) for name in skeletons.values())
        file.write(f"  <meta><task><labels>\n{labels}  </labels></task></meta>\n")
        for number, image in enumerate(found):
            height, width = image.size
            size = f'width="{width}" height="{height}"'
            file.write(f'  <image id="{number}" name="{xml_text(image.name)}" {size}>\n')
            for item in image.objects:
                group = {"group_id": str(next(groups))} if item.keypoints else {}
                file.writelines(f"    {line}\n" for line in _shape(item, tolerance, group))
                if item.keypoints:
                    lines = _skeleton(item, skeletons[item.label], group, found.categories.keypoint_names)
                    file.writelines(f"    {line}\n" for line in lines)
            file.write("  </image>\n")
        file.write("</annotations>\n")


def _label(name: str) -> str:
    """The declaration of a label. CVAT takes those of the task; datumaro, for one, needs it."""
    attribute = "<name>score</name><mutable>False</mutable><input_type>text</input_type>"
    attributes = f"<attributes><attribute>{attribute}</attribute></attributes>"
    return f"    <label><name>{xml_text(name)}</name>{attributes}</label>\n"


def _skeleton_labels(categories: Categories) -> dict[int, str]:
    """The label of the skeletons, by that of the category: in CVAT it can be that of no other shape."""
    names = {label: categories.names[label - 1] + _OF_SKELETON for label in categories.keypoint_labels}
    if taken := sorted(set(names.values()) & set(categories.names)):
        raise ValueError(f"categories {taken}: CVAT's skeletons get these names; rename the categories")
    return names


def _skeleton_declaration(name: str, categories: Categories) -> str:
    """The declarations of a skeleton's label and those of its points."""
    points = "".join(
        f"    <label><name>{xml_text(point)}</name><type>points</type><attributes></attributes>"
        f"<parent>{xml_text(name)}</parent></label>\n"
        for point in categories.keypoint_names
    )
    return _label(name).replace("</name>", "</name><type>skeleton</type>", 1) + points


def _shape(item: FoundObject, tolerance: float, group: Mapping[str, str]) -> Iterator[str]:
    kind, values = _geometry(item, tolerance)
    attributes = {"label": item.name, "source": "auto", "occluded": "0", **values, "z_order": "0", **group}
    yield f"<{kind} {_attributes(attributes)}>"
    yield from _score(item)
    yield f"</{kind}>"


def _skeleton(item: FoundObject, label: str, group: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
    """The skeleton with all of its points, which CVAT needs; those that are not there are "outside"."""
    x1, y1, x2, y2 = item.box
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    common = {"source": "auto", "occluded": "0"}
    whole = {"label": label, **common, "z_order": "0", **group}
    yield f"<skeleton {_attributes(whole)}>"
    for name in names:
        x, y = item.keypoints.get(name, middle)
        outside = str(int(name not in item.keypoints))
        point = {"label": name, **common, "outside": outside, "points": f"{x:.2f},{y:.2f}"}
        yield f"  <points {_attributes(point)}></points>"
    yield from _score(item)
    yield "</skeleton>"


def _attributes(values: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{xml_text(value)}"' for name, value in values.items())


def _score(item: FoundObject) -> Iterator[str]:
    if item.score is not None:
        yield f'  <attribute name="score">{item.score:.6g}</attribute>'


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
