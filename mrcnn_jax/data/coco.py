"""COCO-format data sets: annotation files and image folders, checked as they are read."""

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

SMALLEST_SIDE = 1e-3  # pixels; a narrower box is an empty one
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False, slots=True)
class CocoAnnotation:
    """One object, in pixels of the original image."""

    id: int
    label: int  # 1 to the number of categories
    box: Box
    crowd: bool  # a group of objects, not to be told apart
    segmentation: Segmentation | None  # None: not known, or without a polygon that has an inside
    keypoints: np.ndarray | None  # [K 3] float32: x, y, visibility
    area: float | None = None  # of the mask in square pixels, as the file says; evaluation sorts by it


@dataclass(frozen=True, eq=False, slots=True)
class CocoImage:
    """One image and its objects. Its size is that of the upright image (EXIF applied)."""

    id: int
    path: Path
    file_name: str  # as in the annotation file
    height: int
    width: int
    annotations: tuple[CocoAnnotation, ...]


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The images of one annotation file, in the file's order."""

    name: str  # the annotation file, for messages
    categories: Categories
    images: tuple[CocoImage, ...]
    findings: tuple[Finding, ...] = ()  # the errors are not in ``images``


def read_coco(
    root: str | Path, *, images: str, annotations: str, keypoints: str = "", skip_bad: bool = False
) -> CocoDataset:
    """The data set of the folder ``images`` and the file ``annotations``, both relative to ``root``.

    Every entry is checked, and that the image files are there; ``check_images`` looks into those. Warnings
    are masks without an inside, left out; objects with no part of their box inside the image: these stay in,
    for evaluation, and training leaves them out; and images of one file, which stay in, too.

    Args:
        root: Folder of the data set.
        images: Folder that the ``file_name`` of the images is relative to.
        annotations: ``instances_*.json``. Keypoints are read from it where its categories name them ...
        keypoints: ... or from this ``person_keypoints_*.json``, joined by annotation id.
        skip_bad: Whether to leave out annotations, and images with theirs, that break the format's rules. Of
            entries with one id the first is kept; of images neither, unless both say the same.

    Raises:
        ValueError: naming file and rule, for folders or files that are missing or unusable as a whole. With
            the table of all findings, unless ``skip_bad``, for entries that break the format's rules.
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
    del content, keypoint_content  # no entry is kept longer than needed: COCO's take gigabytes
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
    """The data set without the images of these findings, which are added to its own."""
    ids = {finding.image_id for finding in bad}
    return dataclasses.replace(
        dataset,
        images=tuple(image for image in dataset.images if image.id not in ids),
        findings=(*dataset.findings, *bad),
    )


def clip_box(box: Box, size: Size) -> Box | None:
    """The part of a box inside an image, in its pixels; None if there is none."""
    x1, y1, x2, y2 = box
    x1, x2 = max(x1, 0.0), min(x2, float(size[1]))
    y1, y2 = max(y1, 0.0), min(y2, float(size[0]))
    return None if min(x2 - x1, y2 - y1) < SMALLEST_SIDE else (x1, y1, x2, y2)


class _Reader:
    """Reads entries, and keeps what is wrong with those that it returns nothing for."""

    def __init__(self, path: Path, keypoint_path: Path, categories: Categories) -> None:
        self.findings: list[Finding] = []
        self._path, self._keypoint_path, self._categories = path, keypoint_path, categories
        self._labels = {category: label for label, category in enumerate(categories.ids, start=1)}
        self._ambiguous: set[int] = set()

    def by_id(self, content: dict, section: str, path: Path) -> dict[int, dict]:
        """The entries of a section, keyed by their id, in the order of the file."""
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
                rule = f"{section}[{index}]: {section} has this id twice"
                if section == "images":
                    self.findings.append(Finding(str(path), entry_id, None, rule))
                    if first != entry:  # which of the two an annotation is about is not known
                        self._ambiguous.add(entry_id)
                else:
                    self.findings.append(Finding(str(path), _image_id(entry), entry_id, rule))
        return by_id

    def join_keypoints(self, annotations: dict[int, dict], keypoint_content: dict) -> None:
        """Gives ``annotations`` the keypoints of the second file."""
        entries = self.by_id(keypoint_content, "annotations", self._keypoint_path)
        for annotation_id, entry in entries.items():
            instance = annotations.get(annotation_id)
            if instance is None or instance.get("image_id") != entry.get("image_id"):
                rule = f"has no annotation of the same id and image_id in {self._path}"
                self.findings.append(Finding(str(self._keypoint_path), _image_id(entry), annotation_id, rule))
            else:
                instance["keypoints"] = entry.get("keypoints")

    def image(self, entry: dict, folder: Path) -> CocoImage | None:
        """An image, its annotations yet to come; None if its entry breaks a rule."""
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
        """Warns of images that are of one file: its objects may be here and there."""
        first_of: dict[Path, int] = {}
        for image in images:
            if image is not None and (first := first_of.setdefault(image.path, image.id)) != image.id:
                rule = f"file_name {image.file_name!r} is that of image {first}, too; both are kept"
                self.findings.append(Finding(str(self._path), image.id, None, rule, True))

    def annotation(self, entry: dict, sizes: dict[int, Size | None]) -> CocoAnnotation | None:
        """An object; None if its entry breaks a rule, or its image's did, for which ``sizes`` has None."""
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
            warnings.append(
                f"bbox {entry['bbox']} has no area inside the image ({shape}); it is not trained on"
            )
        if segmentation is None and entry.get("segmentation"):
            warnings.append("segmentation has no polygon of three points or more; the mask is not known")
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
    """What ``read`` returns; None, and its message among the problems, if it raises ValueError."""
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
    """The image that an annotation is about, if it says so."""
    value = entry.get("image_id")
    return value if type(value) is int else None


def _missing_files(dataset: CocoDataset) -> list[Finding]:
    """The images whose files are missing."""
    listings: dict[Path, set[str]] = {}  # one look per folder: cheaper than one per file
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
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return set()
