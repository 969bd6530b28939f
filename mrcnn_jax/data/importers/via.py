"""Reads projects and exported annotations of the VGG Image Annotator (VIA), versions 1, 2 and 3.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/ (``via.js``; of version 3 ``_via_metadata.js``).
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mrcnn_jax.data import fields
from mrcnn_jax.data.importers.builder import CocoBuilder, ImageFile
from mrcnn_jax.data.importers.files import image_names
from mrcnn_jax.data.importers.regions import Region, ellipse, polygon, rectangle
from mrcnn_jax.data.importers.via_csv import read_via_csv
from mrcnn_jax.json_files import read_json

_WITHOUT_AREA = ("point", "line", "polyline")
# Version 3 numbers its shapes; the numbers of each are the arguments of the shapes of version 2.
_SHAPES = {
    1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon",
    8: "extreme_rect", 9: "extreme_circle",
}  # fmt: skip
_IMAGE = 2  # version 3's type of files; others are video and audio
_WITH_OPTIONS = ("dropdown", "radio", "checkbox")  # version 2's types of attributes with named options


@dataclass(frozen=True)
class _Region:
    """A region of any version."""

    entry: str
    name: Any  # rect, circle, ...
    numbers: dict[str, Any]  # fields of the shape, as in version 2
    attributes: dict[str, Any]  # by the attribute's name; several selected options are a dict


def add_via(builder: CocoBuilder, path: Path, *, attribute: str | None, category: str | None) -> None:
    """Adds the images and objects of a VIA file.

    ``attribute`` names the region attribute that is the category; if None, it is the only one there is. Or
    all objects are of one ``category``. Raises ValueError if the file is not VIA's, if the attribute does not
    exist or has to be named, or if both are given.
    """
    content = _read(path)
    is_third = "metadata" in content
    try:
        images = list(_images_of_version_3(content) if is_third else _images_of_version_2(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    names = _attribute_names(content, is_third)
    for _, regions in images:
        for region in regions:
            names.update(dict.fromkeys(region.attributes))
    if category is None:
        attribute = _choose(path, list(names), attribute)
    elif attribute is not None:
        raise ValueError(f"{path}: --category and --via_attribute exclude each other")
    for (entry, name), regions in tqdm(images, unit="image", leave=False, disable=None):
        if not isinstance(name, str) or not name:
            builder.problem(path, str(fields.error(entry, "filename", "a string", name)))
            continue
        # A URL's last part is the file's name.
        file_name = PurePosixPath(re.sub(r"^\w+://([^?#]*).*$", r"\1", name).replace("\\", "/"))
        prefix = "" if is_third else _default_folder(content)
        beside, _, bare = image_names(builder.images, path, PurePosixPath(prefix) / file_name)
        image = builder.add_image(path, [beside, os.fspath(file_name), bare])
        if image is not None:
            _add_regions(
                builder, path, image, regions, lambda region: category or _category(region, attribute)
            )


def _add_regions(
    builder: CocoBuilder,
    path: Path,
    image: ImageFile,
    regions: list[_Region],
    category_of: Callable[[_Region], str],
) -> None:
    for region in regions:
        entry = f"{image.file_name}: {region.entry}"
        if region.name in (*_WITHOUT_AREA, "extreme_circle"):
            reason = "not supported" if region.name == "extreme_circle" else "they have no area"
            builder.leave_out(f"regions of shape {region.name!r}: {reason}")
            continue
        try:
            category = category_of(region)
            part = _read_region(region, image)
        except ValueError as error:
            builder.problem(path, f"{entry}: {error}")
            continue
        builder.add_object(image, category, [part], file=path, entry=entry)


def _read(path: Path) -> dict:
    if path.suffix.lower() == ".csv":
        return read_via_csv(path)
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object, as VIA writes it")
    return content


def _images_of_version_2(content: dict) -> Iterator[tuple[tuple[str, Any], list[_Region]]]:
    """The images of a project or an export of version 1 or 2: entry and file name, regions."""
    entries = content.get("_via_img_metadata", content)
    if not isinstance(entries, dict):
        raise fields.error("", "_via_img_metadata", "an object", entries)
    options = _options(content)
    for key, item in entries.items():
        if not isinstance(item, dict) or "filename" not in item:
            raise ValueError(f"entry {key!r}: VIA's images have a 'filename' and 'regions'")
        regions = item.get("regions") or []
        if not isinstance(regions, list | dict):
            raise fields.error(f"entry {key!r}", "regions", "a list", regions)
        numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)  # version 1: a dict
        found = []
        for index, region in numbered:
            region = region if isinstance(region, dict) else {}
            shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
            shape = shape if isinstance(shape, dict) else {}
            found.append(
                _Region(
                    f"regions[{index}]",
                    shape.get("name"),
                    shape,
                    _with_descriptions(attributes if isinstance(attributes, dict) else {}, options),
                )
            )
        yield (f"entry {key!r}", item["filename"]), found


def _options(content: dict) -> dict[str, dict[str, str]]:
    """The descriptions of the options of each region attribute in a project of version 2, by their ids."""
    defined = content.get("_via_attributes")
    regions = defined.get("region") if isinstance(defined, dict) else None
    found = {}
    for name, attribute in (regions if isinstance(regions, dict) else {}).items():
        options = attribute.get("options") if isinstance(attribute, dict) else None
        if isinstance(options, dict) and attribute.get("type") in _WITH_OPTIONS:
            texts = {key: text.strip() for key, text in options.items() if isinstance(text, str)}
            found[name] = {key: text for key, text in texts.items() if text}
    return found


def _with_descriptions(attributes: dict[str, Any], options: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The attributes of a region with descriptions, which VIA itself exports to COCO, in place of ids."""
    described: dict[str, Any] = {}
    for name, value in attributes.items():
        texts = options.get(name, {})
        if isinstance(value, dict):  # check boxes
            described[name] = {texts.get(key, key): checked for key, checked in value.items()}
        else:
            described[name] = texts.get(value, value) if isinstance(value, str) else value
    return described


def _images_of_version_3(content: dict) -> Iterator[tuple[tuple[str, Any], list[_Region]]]:
    """The images of a project of version 3."""
    sections: dict[str, dict] = {}
    for name in ("file", "view", "metadata", "attribute"):
        section = content.get(name)
        if not isinstance(section, dict):
            raise fields.error("", name, "an object, as in VIA 3", section)
        sections[name] = section
    attributes = sections["attribute"]
    of_view: dict[str, list[_Region]] = {}
    for key, item in sections["metadata"].items():
        item = item if isinstance(item, dict) else {}
        numbers, values = item.get("xy"), item.get("av")
        named: dict[str, Any] = {}
        for number, value in (values if isinstance(values, dict) else {}).items():
            described = attributes.get(number)
            if isinstance(described, dict) and isinstance(described.get("aname"), str):
                options = described.get("options")
                if isinstance(options, dict) and isinstance(value, str):
                    # Check boxes store several ids with commas between them.
                    chosen = [str(options.get(part, part)) for part in value.split(",")]
                    value = chosen[0] if len(chosen) == 1 else dict.fromkeys(chosen, True)
                named[described["aname"]] = value
        if item.get("z") or numbers == []:
            continue  # a segment of time in a video; an attribute of the whole file
        shape, *rest = numbers if isinstance(numbers, list) else [numbers]
        drawn = _SHAPES.get(shape, str(shape)) if isinstance(shape, int) else shape
        region = _Region(f"metadata {key!r}", drawn, _version_2_numbers(drawn, rest), named)
        of_view.setdefault(str(item.get("vid")), []).append(region)
    for key, view in sections["view"].items():
        ids = view.get("fid_list") if isinstance(view, dict) else None
        number = str(ids[0]) if isinstance(ids, list) and len(ids) == 1 else ""
        file = sections["file"].get(number)
        if not isinstance(file, dict):
            raise ValueError(f"view {key!r}: fid_list must be the id of one file, got {ids!r}")
        if file.get("type", _IMAGE) == _IMAGE:
            yield (f"file {number!r}", file.get("fname")), of_view.get(str(key), [])


def _version_2_numbers(name: Any, numbers: list) -> dict[str, Any]:
    keys = {
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }
    if isinstance(name, str) and name in keys:
        return dict(zip(keys[name], numbers, strict=False))
    return {"all_points_x": numbers[::2], "all_points_y": numbers[1::2]}


def _attribute_names(content: dict, is_third: bool) -> dict[str, None]:
    """The region attributes that the project defines, in its order."""
    if is_third:
        defined = content["attribute"].values() if isinstance(content.get("attribute"), dict) else ()
        # The anchors of file attributes have no XY with a number.
        return {
            item["aname"]: None
            for item in defined
            if isinstance(item, dict)
            and isinstance(item.get("aname"), str)
            and re.search(r"_XY[1-9N]", str(item.get("anchor_id", "_XY1")))
        }
    defined = content.get("_via_attributes")
    regions = defined.get("region") if isinstance(defined, dict) else None
    return dict.fromkeys(regions if isinstance(regions, dict) else ())


def _choose(path: Path, names: list[str], attribute: str | None) -> str:
    listed = ", ".join(names) or "none"
    if attribute is not None:
        if attribute not in names:
            raise ValueError(f"{path}: --via_attribute={attribute}: the region attributes are {listed}")
        return attribute
    if len(names) != 1:
        raise ValueError(
            f"{path}: the category is one of the region attributes, which are: {listed}; "
            + (
                "--via_attribute=NAME says which"
                if names
                else "--category=NAME gives all objects one category"
            )
        )
    return names[0]


def _category(region: _Region, attribute: str | None) -> str:
    value = region.attributes.get(attribute or "")
    if isinstance(value, dict):  # check boxes
        chosen = [name for name, checked in value.items() if checked]
        if len(chosen) != 1:
            raise fields.error("", f"attribute {attribute!r}", "one category", chosen)
        return chosen[0]
    if not isinstance(value, str) or not value.strip():
        raise fields.error("", f"attribute {attribute!r}", "the name of a category", value)
    return value.strip()  # typed by hand


def _read_region(region: _Region, image: ImageFile) -> Region:
    def numbers(*keys: str) -> list[float]:
        values = [region.numbers.get(key) for key in keys]
        if not fields.is_numbers(values):
            raise fields.error("", f"{', '.join(keys)} of a {region.name}", "numbers", values)
        return values

    match region.name:
        case "rect":
            x, y, width, height = numbers("x", "y", "width", "height")
            return rectangle([[x, y], [x + width, y + height]])
        case "circle":
            x, y, radius = numbers("cx", "cy", "r")
            return ellipse(x, y, radius, radius, size=image.size)
        case "ellipse":
            x, y, rx, ry = numbers("cx", "cy", "rx", "ry")
            (angle,) = numbers("theta") if "theta" in region.numbers else (0.0,)
            return ellipse(x, y, rx, ry, angle=angle, size=image.size)
        case "polygon" | "extreme_rect":
            xs, ys = region.numbers.get("all_points_x"), region.numbers.get("all_points_y")
            if not (fields.is_numbers(xs) and fields.is_numbers(ys) and len(xs) == len(ys) > 0):
                rule = "lists of as many numbers"
                raise fields.error("", "all_points_x and all_points_y", rule, [xs, ys])
            points = [list(point) for point in zip(xs, ys, strict=True)]
            return polygon(points) if region.name == "polygon" else rectangle(points)
    raise fields.error(
        "", "the shape", "rect, circle, ellipse, polygon, point, line or polyline", region.name
    )


def _default_folder(content: dict) -> str:
    """The folder that version 2's settings put before the file names, if it is not a URL."""
    settings: Any = content
    for key in ("_via_settings", "core", "default_filepath"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings.replace("\\", "/") if isinstance(settings, str) and "://" not in settings else ""
