"""The objects of a COCO results list, image by image, with the images' files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn_jax.data import coco_fields, fields
from mrcnn_jax.data.coco import clip_box
from mrcnn_jax.data.file_names import ImageFolder
from mrcnn_jax.data.image_list import read_image_list
from mrcnn_jax.image_size import upright_size
from mrcnn_jax.images import Size, read_file
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import UNUSED, Categories, check_consistent
from mrcnn_jax.tool_formats.keypoints import Keypoints, count_keypoints, visible_keypoints, with_keypoints
from mrcnn_jax.tool_formats.results_file import ResultsFile

_LISTED = 10  # images in a message


@dataclass(frozen=True)
class FoundObject:
    """An object of an image."""

    label: int  # 1 to the number of categories
    name: str  # of the category
    box: tuple[float, float, float, float]  # x1 y1 x2 y2 in pixels, inside the image
    score: float | None
    mask: PastedMask | None  # the smallest crop with all its pixels; None without a mask
    keypoints: Keypoints  # those that are there, by name; empty without any


@dataclass(frozen=True)
class FoundImage:
    """An image and the objects in it, in the order of the file."""

    id: int
    file: Path
    name: str  # of the file, relative to the folder of images, with "/"
    size: Size  # height and width of the upright image
    objects: Sequence[FoundObject]


class Found:
    """A COCO results list, with its images in ``folder``: iterating reads one image's objects at a time.

    Args:
        results: What ``mrcnn-jax predict`` and ``evaluate`` write. All entries must be of images in the
            folder: by their ``file_name``, or by their ``image_id`` in ``annotations``.
        folder: The images' folder.
        annotations: A COCO file of the images and categories, with or without annotations. It is needed if
            entries lack a ``file_name`` or a ``category``. All of its images are then given, also those
            without objects, and all of its categories. Keypoints have the names that it gives them.
        score_threshold: Objects with a lower score are left out.
        keypoints: Whether to read keypoints. If so, the ``categories`` whose objects have any name them, and
            ``keypoints_are_numbered`` says whether that is for want of names.

    Raises ValueError, naming the file and the entry, for what is wrong or missing. After an iteration,
    ``given`` is the number of objects, and ``left_out`` counts what is not among them, as a noun in the
    plural and the reason.
    """

    def __init__(
        self,
        results: Path,
        folder: Path,
        *,
        annotations: Path | None = None,
        score_threshold: float = 0.0,
        keypoints: bool = True,
    ) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder of images")
        self.folder = folder
        self.left_out: Counter[str] = Counter()
        self.given = 0
        self._threshold = score_threshold
        self._results = ResultsFile(results)
        listed = None if annotations is None else read_image_list(annotations, folder)
        names: Mapping[int, str | None] = self._results.categories if listed is None else listed.categories
        if annotations is not None and (unknown := sorted(self._results.categories.keys() - names.keys())):
            raise ValueError(f"{results}: category ids {unknown[:_LISTED]} are not in {annotations}")
        self.categories = _categories(results, names)
        self._without_keypoints = "sets of keypoints: --nokeypoints"
        if keypoints:
            self._without_keypoints = "sets of keypoints: their category has none in --annotations"
            try:
                self.categories = with_keypoints(self.categories, self._results.keypoints, listed)
                check_consistent(self.categories)
            except ValueError as error:
                raise ValueError(f"{results}: keypoints: {error}; --nokeypoints leaves them out") from error
        named = listed is not None and any(entry.get("keypoints") for entry in listed.category_entries)
        self.keypoints_are_numbered = bool(self.categories.keypoint_names) and not named
        self._labels = {category: label for label, category in enumerate(self.categories.ids, start=1)}
        if listed is not None:
            self._files = dict(zip(listed.ids, listed.images, strict=True))
            if unknown := [image for image in self._results.image_ids if image not in self._files]:
                raise ValueError(f"{results}: image ids {unknown[:_LISTED]} are not in {annotations}")
        else:
            self._files = self._find_files()

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[FoundImage]:
        self.given = 0
        self.left_out.clear()
        for image_id, file in self._files.items():
            size, _ = upright_size(read_file(file), name=str(file))
            objects = []
            for where, entry in self._results.entries(image_id):
                try:
                    found = self._read(entry, size)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if found is not None:
                    objects.append(found)
            self.given += len(objects)
            yield FoundImage(image_id, file, file.relative_to(self.folder).as_posix(), size, objects)

    def _find_files(self) -> dict[int, Path]:
        """The file of each image, by its first entry."""
        files = ImageFolder(self.folder)
        found: dict[int, Path] = {}
        missing = []
        for image_id in self._results.image_ids:
            where, entry = next(self._results.entries(image_id))
            if "file_name" not in entry:
                raise ValueError(f"{where}: has no file_name; --annotations=FILE.json says which image it is")
            try:
                found[image_id] = files.find(fields.text(entry, "file_name"))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            if not files.has(found[image_id]):
                missing.append(f"{entry['file_name']!r}: {files.missing(found[image_id])}")
        if missing:
            listed = "".join(f"\n{line}" for line in missing[:_LISTED])
            count = f"{len(missing)} of {len(found)} images"
            raise ValueError(f"{self._results.path}: {count} are not in {self.folder}:{listed}")
        if repeated := [str(file) for file, count in Counter(found.values()).items() if count > 1]:
            raise ValueError(
                f"{self._results.path}: several image ids have the same file: "
                f"{', '.join(repeated[:_LISTED])}; --annotations=FILE.json says which images they are"
            )
        return found

    def _read(self, entry: dict[str, Any], size: Size) -> FoundObject | None:
        """The object; None if it is left out."""
        score = entry.get("score")
        if score is not None and not fields.is_numbers([score]):
            raise fields.error("", "score", "a number", score)
        label = self._labels.get(fields.integer(entry, "category_id"))
        if label is None or (score is not None and score < self._threshold):
            self.left_out["objects of unused categories" if label is None else "objects of lower scores"] += 1
            return None
        mask = _read_mask(entry.get("segmentation"), size)
        if mask is not None and "bbox" not in entry:
            height, width = mask.mask.shape
            box = float(mask.left), float(mask.top), float(mask.left + width), float(mask.top + height)
        else:
            clipped = clip_box(coco_fields.read_box(entry), size)
            if clipped is None:
                self.left_out["objects outside of their image"] += 1
                return None
            box = clipped
        keypoints: Keypoints = {}
        if count_keypoints(entry):
            if label in self.categories.keypoint_labels:
                keypoints = visible_keypoints(entry["keypoints"], self.categories.keypoint_names, size)
            else:
                self.left_out[self._without_keypoints] += 1
        name = self.categories.names[label - 1]
        return FoundObject(label, name, box, None if score is None else float(score), mask, keypoints)

    def leave_out_keypoints(self, image: FoundImage, format: str) -> None:
        """Counts the objects with keypoints, for which the format has no place."""
        if count := sum(bool(item.keypoints) for item in image.objects):
            self.left_out[f"sets of keypoints: {format} has no place for them"] += count


def _read_mask(segmentation: Any, size: Size) -> PastedMask | None:
    """The smallest crop with all of the mask; None if there is none, or no pixel in it."""
    if segmentation and not isinstance(segmentation, dict):
        raise fields.error("", "segmentation", "an RLE, as in COCO results", segmentation)
    rle = coco_fields.read_segmentation(segmentation, size)
    if not isinstance(rle, Rle):
        return None
    pixels, top, left = rle.to_crop()
    return PastedMask(top=top, left=left, mask=pixels) if pixels.size else None


def _categories(results: Path, names: Mapping[int, str | None]) -> Categories:
    """The categories that are used, by ascending id."""
    if unnamed := [category for category, name in sorted(names.items()) if name is None]:
        raise ValueError(
            f"{results}: the category ids {unnamed[:_LISTED]} have no name (category); "
            "--annotations=FILE.json, a COCO file with categories, has them"
        )
    used = {category: name for category, name in sorted(names.items()) if name and name != UNUSED}
    if repeated := [name for name, count in Counter(used.values()).items() if count > 1]:
        raise ValueError(f"{results}: several category ids are called {', '.join(map(repr, repeated))}")
    categories = Categories(ids=tuple(used), names=tuple(used.values()))
    try:
        check_consistent(categories)
    except ValueError as error:
        raise ValueError(f"{results}: categories: {error}") from error
    return categories
