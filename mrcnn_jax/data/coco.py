"""Reads and checks COCO-format datasets: an annotation file and a folder of images."""

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.box_agreement import BoxAgreement
from mrcnn_jax.data.categories import KeypointRule, read_categories
from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.data.coco_ids import annotations_by_id, image_id_of, images_by_id
from mrcnn_jax.data.federated import NOT_EXHAUSTIVE_FIELD, is_federated, read_frequencies
from mrcnn_jax.data.file_names import ImageFolder
from mrcnn_jax.data.findings import Finding, raise_errors
from mrcnn_jax.data.keypoint_agreement import KeypointAgreement
from mrcnn_jax.image_names import LVIS_FIELD, image_names
from mrcnn_jax.images import Size
from mrcnn_jax.json_files import read_json
from mrcnn_jax.runs.categories import Categories

_NAMES = "file_name", "coco_url"  # of an image
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
    # Of LVIS: labels of categories without an object here, and of those with objects that are not annotated.
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The parsed content of one annotation file, images in file order; pixels are not read.

    See ``DataSource`` for access to the pixels.
    """

    name: str  # the annotation file, for messages
    categories: Categories
    images: tuple[CocoImage, ...]
    findings: tuple[Finding, ...] = ()  # entries with errors are not in ``images``
    frequencies: tuple[str, ...] | None = None  # of LVIS's categories ("r", "c" or "f"); None: not LVIS's


def read_coco(
    root: str | Path,
    *,
    images: str,
    annotations: str,
    keypoints: str = "",
    keypoint_rule: KeypointRule = "strict",
    crowds_are_objects: bool = False,
    skip_bad: bool = False,
) -> CocoDataset:
    """The dataset in the folder ``images`` and the file ``annotations``, both relative to ``root``.

    Checks every entry, that boxes fit their masks and keypoints, and that every image file exists;
    ``check_images`` checks the files' content. docs/data.md lists what is an error and what a warning.

    Args:
        root: Folder of the dataset.
        images: Folder that the ``file_name`` of each image is relative to, or the end of its ``coco_url``
            (``train2017/000000000009.jpg``) in LVIS's files.
        annotations: ``instances_*.json`` or ``lvis_*.json``. Keypoints are read from it if its categories
            define them ...
        keypoints: ... or from this ``person_keypoints_*.json``, joined by annotation id.
        keypoint_rule: "skip" to read no keypoints; "lenient" to drop those that violate the format, with a
            warning; or "strict", for an error.
        crowds_are_objects: Whether to read crowds as ordinary objects.
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
    if keypoint_rule == "skip":
        keypoints = ""
    keypoint_path = root / keypoints if keypoints else path
    keypoint_content = _read_object(keypoint_path, coco_fields.drop_segmentation) if keypoints else content

    findings: list[Finding] = []
    categories = read_categories(
        fields.entries(content, "categories", str(path)),
        str(path),
        keypoint_entries=fields.entries(keypoint_content, "categories", str(keypoint_path)),
        keypoint_where=str(keypoint_path),
        keypoint_rule=keypoint_rule,
        findings=findings,
    )
    if keypoints and keypoint_rule == "strict" and not categories.keypoint_names:
        raise ValueError(f"{keypoint_path}: no category has a 'keypoints' list of names")

    frequencies = None
    if is_federated(fields.section(content, "images", str(path))):
        frequencies = read_frequencies(fields.entries(content, "categories", str(path)), str(path))
    image_entries, ambiguous = images_by_id(content, path, findings)
    annotation_entries = annotations_by_id(content, path, findings, renumber=not keypoints)
    reader = _Reader(path, keypoint_path, categories, ImageFolder(folder), findings)
    if keypoints:
        reader.join_keypoints(annotation_entries, keypoint_content)
    del content, keypoint_content  # free entries as soon as possible: COCO's take gigabytes
    read = {
        image_id: None if image_id in ambiguous else reader.image(entry)
        for image_id, entry in image_entries.items()
    }
    reader.compare_files(read.values())
    sizes = {i: None if image is None else (image.height, image.width) for i, image in read.items()}
    objects: dict[int, list[CocoAnnotation]] = {image_id: [] for image_id in read}
    agreement, keypoint_agreement = BoxAgreement(str(path)), KeypointAgreement(str(keypoint_path))
    for annotation_id in list(annotation_entries):
        entry = annotation_entries.pop(annotation_id)
        annotation = reader.annotation(
            entry, sizes, agreement, lenient=keypoint_rule == "lenient", crowds_are_objects=crowds_are_objects
        )
        if annotation is not None:
            objects[entry["image_id"]].append(annotation)
            if annotation.keypoints is not None and not annotation.crowd:
                keypoint_agreement.add(
                    image_id=entry["image_id"],
                    annotation_id=annotation.id,
                    box=annotation.box,
                    keypoints=annotation.keypoints,
                )
    judged, left_out = agreement.judge()
    findings += [*judged, *keypoint_agreement.judge(strict=keypoint_rule == "strict")]
    dataset = CocoDataset(
        name=str(path),
        categories=categories,
        images=tuple(
            dataclasses.replace(
                image, annotations=tuple(item for item in objects[image_id] if item.id not in left_out)
            )
            for image_id, image in read.items()
            if image is not None
        ),
        findings=tuple(findings),
        frequencies=frequencies,
    )
    dataset = leave_out(dataset, reader.missing_files(dataset))
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
    """Reads entries and appends findings about the invalid ones."""

    def __init__(
        self,
        path: Path,
        keypoint_path: Path,
        categories: Categories,
        folder: ImageFolder,
        findings: list[Finding],
    ) -> None:
        self._findings = findings
        self._path, self._keypoint_path, self._categories = path, keypoint_path, categories
        self._folder = folder
        self._labels = {category: label for label, category in enumerate(categories.ids, start=1)}

    def join_keypoints(self, annotations: dict[int, dict], keypoint_content: dict) -> None:
        """Copies the keypoints of the second file into ``annotations``."""
        entries = annotations_by_id(keypoint_content, self._keypoint_path, self._findings, renumber=False)
        for annotation_id, entry in entries.items():
            instance = annotations.get(annotation_id)
            if instance is None or instance.get("image_id") != entry.get("image_id"):
                rule = f"has no annotation of the same id and image_id in {self._path}"
                place = image_id_of(entry), annotation_id
                self._findings.append(Finding(str(self._keypoint_path), *place, rule))
            else:
                instance["keypoints"] = entry.get("keypoints")

    def image(self, entry: dict) -> CocoImage | None:
        """The image, still without annotations; None if its entry is invalid."""
        problems: list[str] = []
        names = _attempt(problems, image_names, entry)
        found = None if names is None else _attempt(problems, self._folder.find_any, names)
        height = _attempt(problems, coco_fields.read_side, entry, "height")
        width = _attempt(problems, coco_fields.read_side, entry, "width")
        negative, not_exhaustive = (
            _attempt(problems, coco_fields.read_labels, entry, key, self._labels)
            for key in (LVIS_FIELD, NOT_EXHAUSTIVE_FIELD)
        )
        self._findings += [Finding(str(self._path), entry["id"], None, problem) for problem in problems]
        if negative is None or not_exhaustive is None or found is None or height is None or width is None:
            return None
        return CocoImage(
            id=entry["id"],
            path=found[1],
            file_name=found[0],
            height=height,
            width=width,
            annotations=(),
            negative=negative,
            not_exhaustive=not_exhaustive,
        )

    def compare_files(self, images: Iterable[CocoImage | None]) -> None:
        """Warns about images sharing a file, whose objects may be split between their entries."""
        first_of: dict[Path, int] = {}
        for image in images:
            if image is not None and (first := first_of.setdefault(image.path, image.id)) != image.id:
                rule = f"file_name {image.file_name!r} is also used by image {first}; both are kept"
                self._findings.append(Finding(str(self._path), image.id, None, rule, True))

    def missing_files(self, dataset: CocoDataset) -> list[Finding]:
        """A finding for each image whose file is missing."""
        return [
            Finding(str(image.path), image.id, None, self._folder.missing(image.path))
            for image in dataset.images
            if not self._folder.has(image.path)
        ]

    def annotation(
        self,
        entry: dict,
        sizes: dict[int, Size | None],
        agreement: BoxAgreement,
        *,
        lenient: bool,
        crowds_are_objects: bool,
    ) -> CocoAnnotation | None:
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
        place = image_id_of(entry), entry["id"]
        for path, rules, warn in (
            (self._path, problems, False), (self._keypoint_path, keypoint_problems, lenient)
        ):  # fmt: skip
            end = "; its keypoints are left out" if warn else ""
            self._findings += [Finding(str(path), *place, rule + end, warn) for rule in rules]
        if keypoint_problems and not lenient:
            return None
        if problems or image_id is None or size is None or label is None or box is None or crowd is None:
            return None

        crowd = crowd and not crowds_are_objects
        warnings = []
        if clip_box(box, size) is None:
            shape = f"{size[0]} x {size[1]}"
            warnings.append(f"bbox {entry['bbox']} has no area inside the image ({shape}); not trained on")
        if segmentation is None and entry.get("segmentation"):
            warnings.append("segmentation has no polygon with at least three points; the object has no mask")
        if not crowd:
            agreement.add(
                image_id=image_id,
                annotation_id=entry["id"],
                bbox=entry["bbox"],
                segmentation=segmentation,
                size=size,
                warned=bool(warnings),
            )
        self._findings += [Finding(str(self._path), *place, rule, True) for rule in warnings]
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
    except ValueError as error:
        raise ValueError(f"{error}{_of_another_tool(path)}") from error
    hint = "" if _seems_coco(content) else _of_another_tool(path)
    if hint or not isinstance(content, dict):
        raise ValueError(
            f"{path}: must hold one JSON object with 'images', 'annotations' and 'categories'{hint}"
        )
    return content


def _seems_coco(content: Any) -> bool:
    """Whether there are COCO's sections, and images with a file name or, as in LVIS, a URL."""
    if not isinstance(content, dict) or not content.keys() >= {"images", "annotations", "categories"}:
        return False
    images = content["images"]
    if not isinstance(images, list) or not images:
        return True
    return any(isinstance(image, dict) and not image.keys().isdisjoint(_NAMES) for image in images)


def _of_another_tool(path: Path) -> str:
    """What to add to the message about a file that is not in COCO's format, if it is in a known one."""
    # Imported here, as the importers are built on this module.
    from mrcnn_jax.data.importers.recognise import what_it_looks_like

    hint = what_it_looks_like(path)
    return f"\nit {hint}" if hint else ""
