"""Reads and checks COCO-format datasets: an annotation file and a folder of images."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.categories import read_categories
from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.data.findings import Finding, raise_errors
from mrcnn_jax.images import Size
from mrcnn_jax.json_files import read_json
from mrcnn_jax.types import Categories

SMALLEST_SIDE = 1e-3  # pixels; a box with a shorter side counts as empty
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False, slots=True)
class CocoAnnotation:
    """One object, in pixels of the original image."""

    id: int
    label: int  # 1 to the number of categories
    box: Box
    crowd: bool  # a group of objects annotated as one
    segmentation: Segmentation | None  # None: absent, or no polygon encloses an area
    keypoints: np.ndarray | None  # [K 3] float32: x, y, visibility
    area: float | None = None  # mask area from the file, in square pixels; sets the size class in evaluation


@dataclass(frozen=True, eq=False, slots=True)
class CocoImage:
    """One image and its annotations. Height and width are those of the upright image (EXIF applied)."""

    id: int
    path: Path
    file_name: str  # as in the annotation file
    height: int
    width: int
    annotations: tuple[CocoAnnotation, ...]


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The parsed content of one annotation file, images in file order; pixels are not read.

    See ``DataSource`` for access to the pixels.
    """

    name: str  # the annotation file, for messages
    categories: Categories
    images: tuple[CocoImage, ...]
    findings: tuple[Finding, ...] = ()  # entries with errors are not in ``images``


def read_coco(
    root: str | Path, *, images: str, annotations: str, keypoints: str = "", skip_bad: bool = False
) -> CocoDataset:
    """The dataset in the folder ``images`` and the file ``annotations``, both relative to ``root``.

    Checks every entry, and that every image file exists; ``check_images`` checks the files' content. Three
    things are warnings: masks that enclose no area, which are dropped; boxes entirely outside the image,
    which are kept for evaluation but not trained on; and several images sharing one file, which are all kept.

    Args:
        root: Folder of the dataset.
        images: Folder that the ``file_name`` of each image is relative to.
        annotations: ``instances_*.json``. Keypoints are read from it if its categories define them ...
        keypoints: ... or from this ``person_keypoints_*.json``, joined by annotation id.
        skip_bad: Whether to drop annotations, and images with their annotations, that violate the format. Of
            annotations with the same id the first is kept; of images with the same id, one if the entries
            are identical, otherwise none.

    Raises:
        ValueError: naming file and rule, for folders or files that are missing or entirely unusable; with a
            table of all findings, unless ``skip_bad``, for entries that violate the format.
    """
    root = Path(root)
    folder = root / images
    for place in (root, folder):
        if not place.is_dir():
            raise ValueError(f"{place}: there is no such folder")
    path = root / annotations
    content = _read_object(path, coco_fields.pack_polygons)
    keypoint_path = root / keypoints if keypoints else path
    keypoint_content = _read_object(keypoint_path, coco_fields.drop_segmentation) if keypoints else content

    categories = read_categories(
        fields.entries(content, "categories", str(path)),
        str(path),
        keypoint_entries=fields.entries(keypoint_content, "categories", str(keypoint_path)),
        keypoint_where=str(keypoint_path),
    )
    if keypoints and not categories.keypoint_names:
        raise ValueError(f"{keypoint_path}: no category has a 'keypoints' list of names")

    reader = _Reader(path, keypoint_path, categories)
    image_entries = reader.by_id(content, "images", path)
    annotation_entries = reader.by_id(content, "annotations", path)
    if keypoints:
        reader.join_keypoints(annotation_entries, keypoint_content)
    del content, keypoint_content  # free entries as soon as possible: COCO's take gigabytes
    read = {image_id: reader.image(entry, folder) for image_id, entry in image_entries.items()}
    reader.compare_files(read.values())
    sizes = {i: None if image is None else (image.height, image.width) for i, image in read.items()}
    objects: dict[int, list[CocoAnnotation]] = {image_id: [] for image_id in read}
    for annotation_id in list(annotation_entries):
        entry = annotation_entries.pop(annotation_id)
        annotation = reader.annotation(entry, sizes)
        if annotation is not None:
            objects[entry["image_id"]].append(annotation)
    dataset = CocoDataset(
        name=str(path),
        categories=categories,
        images=tuple(
            dataclasses.replace(image, annotations=tuple(objects[image_id]))
            for image_id, image in read.items()
            if image is not None
        ),
        findings=tuple(reader.findings),
    )
    dataset = leave_out(dataset, _missing_files(dataset))
    if not skip_bad:
        raise_errors(dataset.name, dataset.findings)
    return dataset


def leave_out(dataset: CocoDataset, bad: Collection[Finding]) -> CocoDataset:
    """The dataset without the images in ``bad``, which is appended to its findings."""
    ids = {finding.image_id for finding in bad}
    return dataclasses.replace(
        dataset,
        images=tuple(image for image in dataset.images if image.id not in ids),
        findings=(*dataset.findings, *bad),
    )


def clip_box(box: Box, size: Size) -> Box | None:
    """The box clipped to the image, in pixels; None if nothing is left."""
    x1, y1, x2, y2 = box
    x1, x2 = max(x1, 0.0), min(x2, float(size[1]))
    y1, y2 = max(y1, 0.0), min(y2, float(size[0]))
    return None if min(x2 - x1, y2 - y1) < SMALLEST_SIDE else (x1, y1, x2, y2)


class _Reader:
    """Reads entries and collects findings about the invalid ones."""

    def __init__(self, path: Path, keypoint_path: Path, categories: Categories) -> None:
        self.findings: list[Finding] = []
        self._path, self._keypoint_path, self._categories = path, keypoint_path, categories
        self._labels = {category: label for label, category in enumerate(categories.ids, start=1)}
        self._ambiguous: set[int] = set()

    def by_id(self, content: dict, section: str, path: Path) -> dict[int, dict]:
        """The entries of a section, keyed by id, in file order."""
        by_id: dict[int, dict] = {}
        for index, entry in enumerate(fields.section(content, section, str(path))):
            try:
                if not isinstance(entry, dict):
                    raise fields.error("", f"{section}[{index}]", "an object", entry)
                entry_id = fields.integer(entry, "id", f"{section}[{index}]")
            except ValueError as error:
                self.findings.append(Finding(str(path), None, None, str(error)))
                continue
            first = by_id.setdefault(entry_id, entry)
            if first is not entry:
                rule = f"{section}[{index}]: duplicate id"
                if section == "images":
                    self.findings.append(Finding(str(path), entry_id, None, rule))
                    if first != entry:  # unknown which of the two an annotation refers to
                        self._ambiguous.add(entry_id)
                else:
                    self.findings.append(Finding(str(path), _image_id(entry), entry_id, rule))
        return by_id

    def join_keypoints(self, annotations: dict[int, dict], keypoint_content: dict) -> None:
        """Copies the keypoints of the second file into ``annotations``."""
        entries = self.by_id(keypoint_content, "annotations", self._keypoint_path)
        for annotation_id, entry in entries.items():
            instance = annotations.get(annotation_id)
            if instance is None or instance.get("image_id") != entry.get("image_id"):
                rule = f"has no annotation of the same id and image_id in {self._path}"
                self.findings.append(Finding(str(self._keypoint_path), _image_id(entry), annotation_id, rule))
            else:
                instance["keypoints"] = entry.get("keypoints")

    def image(self, entry: dict, folder: Path) -> CocoImage | None:
        """The image, still without annotations; None if its entry is invalid."""
        problems: list[str] = []
        file_name = _attempt(problems, coco_fields.read_file_name, entry)
        height = _attempt(problems, coco_fields.read_side, entry, "height")
        width = _attempt(problems, coco_fields.read_side, entry, "width")
        self.findings += [Finding(str(self._path), entry["id"], None, problem) for problem in problems]
        if file_name is None or height is None or width is None or entry["id"] in self._ambiguous:
            return None
        return CocoImage(
            id=entry["id"],
            path=folder / file_name,
            file_name=file_name,
            height=height,
            width=width,
            annotations=(),
        )

    def compare_files(self, images: Iterable[CocoImage | None]) -> None:
        """Warns about images sharing a file, whose objects may be split between their entries."""
        first_of: dict[Path, int] = {}
        for image in images:
            if image is not None and (first := first_of.setdefault(image.path, image.id)) != image.id:
                rule = f"file_name {image.file_name!r} is also used by image {first}; both are kept"
                self.findings.append(Finding(str(self._path), image.id, None, rule, True))

    def annotation(self, entry: dict, sizes: dict[int, Size | None]) -> CocoAnnotation | None:
        """The object; None if its entry, or that of its image (None in ``sizes``), is invalid."""
        problems: list[str] = []
        image_id = _attempt(problems, coco_fields.read_image_id, entry, sizes)
        size = None if image_id is None else sizes[image_id]
        label = _attempt(problems, coco_fields.read_label, entry, self._labels)
        box = _attempt(problems, coco_fields.read_box, entry)
        crowd = _attempt(problems, coco_fields.read_crowd, entry)
        area = _attempt(problems, coco_fields.read_area, entry)
        segmentation = _attempt(problems, coco_fields.read_segmentation, entry.get("segmentation"), size)
        keypoint_problems: list[str] = []
        keypoints = _attempt(
            keypoint_problems, coco_fields.read_keypoints, entry.get("keypoints"), label, self._categories
        )
        for path, rules in ((self._path, problems), (self._keypoint_path, keypoint_problems)):
            self.findings += [Finding(str(path), _image_id(entry), entry["id"], rule) for rule in rules]
        if problems or keypoint_problems or size is None or label is None or box is None or crowd is None:
            return None

        warnings = []
        if clip_box(box, size) is None:
            shape = f"{size[0]} x {size[1]}"
            warnings.append(f"bbox {entry['bbox']} has no area inside the image ({shape}); not trained on")
        if segmentation is None and entry.get("segmentation"):
            warnings.append("segmentation has no polygon with at least three points; the object has no mask")
        self.findings += [Finding(str(self._path), image_id, entry["id"], rule, True) for rule in warnings]
        return CocoAnnotation(
            id=entry["id"],
            label=label,
            box=box,
            crowd=crowd,
            segmentation=segmentation,
            keypoints=keypoints,
            area=area,
        )


def _attempt(problems: list[str], read: Callable[..., _T], *arguments: Any) -> _T | None:
    """The result of ``read``; if it raises ValueError, None, and the message is added to ``problems``."""
    try:
        return read(*arguments)
    except ValueError as error:
        problems.append(str(error))
        return None


def _read_object(path: Path, object_hook: Callable[[dict], Any]) -> dict:
    try:
        content = read_json(path, object_hook=object_hook)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object with 'images', 'annotations' and 'categories'")
    return content


def _image_id(entry: dict) -> int | None:
    """The image id of an annotation, if it has a usable one."""
    value = entry.get("image_id")
    return value if type(value) is int else None


def _missing_files(dataset: CocoDataset) -> list[Finding]:
    """A finding for each image whose file is missing."""
    listings: dict[Path, set[str]] = {}  # listing each folder once is cheaper than a stat per file
    missing = []
    for image in dataset.images:
        parent = image.path.parent
        if parent not in listings:
            listings[parent] = _listing(parent)
        if image.path.name not in listings[parent]:
            missing.append(Finding(str(image.path), image.id, None, "there is no such file"))
    return missing


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: not a legal file name
        return set()
