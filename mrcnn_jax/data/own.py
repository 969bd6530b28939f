"""Data of a program's own: any object with categories, a length, and items by index."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from mrcnn_jax import images
from mrcnn_jax.data import coco_fields
from mrcnn_jax.data.box_agreement import BoxAgreement, mask_extent
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.data.findings import Finding, raise_errors
from mrcnn_jax.data.keypoint_agreement import KeypointAgreement
from mrcnn_jax.data.source import AnnotatedImage, DataSource, FolderSource, check_size
from mrcnn_jax.images import Size
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

_THREADS = 4
_KEYS = {"image", "labels", "boxes", "masks", "keypoints", "crowd", "id"}


@runtime_checkable  # so that tests may check calls against their annotations
class Dataset(Protocol):
    """Images with their objects, such as a PyTorch dataset or a list of items with an attribute more.

    An item is a mapping. For N objects in an image of H x W pixels it holds:

    - ``image``: the path of an image file, or uint8 RGB ``[H W 3]`` (or what else the model takes);
    - ``labels``: N names of categories, or N integers from 1;
    - ``boxes``: ``[N 4]``, x1 y1 x2 y2 in pixels; without it, the boxes of the masks are taken;
    - ``masks``: N masks, each an array ``[H W]`` of 0 and 1, a list of polygons (each ``[P 2]`` or flat, x
      and y in pixels), or an RLE as in COCO's files; may be absent;
    - ``keypoints``: ``[N K 3]``, x, y and COCO's visibility (0 absent, 1 hidden, 2 visible); may be absent;
    - ``crowd``: N booleans, whether a box is of a group of objects; may be absent;
    - ``id``: the image's integer id in results, all different; if absent, 1, 2, 3, ... in order.

    Every item is read once at the start, to check it, and again in every epoch, in threads.
    """

    categories: Categories | Sequence[str]  # names become labels 1, 2, 3, ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def as_source(data: DataSource | Dataset, *, mask_grid: int, pixels: PixelFormat = RGB) -> DataSource:
    """``data`` as a ``DataSource``; one that is a ``DataSource`` already is returned as it is.

    Args:
        data: The images and objects.
        mask_grid: S, the cells of a box-frame mask per axis; 0: no masks.
        pixels: What the images are.

    Raises:
        ValueError: naming the item, the key and the rule, if an item is not as ``Dataset`` describes it, or
            if many boxes do not fit their masks.
    """
    return data if isinstance(data, DataSource) else _OwnSource(data, mask_grid=mask_grid, pixels=pixels)


class _OwnSource(FolderSource):
    """The ``DataSource`` of a ``Dataset``, whose annotations it keeps in memory."""

    def __init__(self, dataset: Dataset, *, mask_grid: int, pixels: PixelFormat) -> None:
        self._dataset = dataset
        name, categories = type(dataset).__name__, dataset.categories
        if not isinstance(categories, Categories):
            ids = tuple(range(1, len(categories) + 1))
            categories = Categories(ids=ids, names=tuple(categories))

        def read(index: int) -> CocoImage:
            return _Item(dataset[index], f"{name}[{index}]", categories, pixels).annotated(index + 1)

        with ThreadPool(_THREADS) as pool:
            read_items = pool.imap(read, range(len(dataset)), chunksize=4)
            items = list(
                tqdm(read_items, f"checking {name}", len(dataset), leave=False, unit="image", disable=None)
            )
        if len({item.id for item in items}) < len(items):
            raise ValueError(f"{name}: several items have the same id")
        number = itertools.count(1)
        numbered = [
            dataclasses.replace(
                item,
                annotations=tuple(dataclasses.replace(x, id=next(number)) for x in item.annotations),
            )
            for item in items
        ]
        findings = _compare_boxes(name, numbered)
        found = CocoDataset(name, categories, tuple(numbered), findings)
        super().__init__(found, mask_grid=mask_grid, pixels=pixels)

    def read(self, index: int) -> AnnotatedImage:
        item = _Item(self._dataset[index], f"{self.name}[{index}]", self.categories, self._pixels)
        pixels = item.pixels()
        height, width = self.sizes[index].tolist()
        check_size(pixels, (height, width), item.where)
        return AnnotatedImage(name=item.where, pixels=pixels, objects=self.objects(index))


def _compare_boxes(name: str, items: Iterable[CocoImage]) -> tuple[Finding, ...]:
    """Warnings about boxes that do not fit their masks or keypoints; raises ValueError if there are many."""
    agreement, keypoint_agreement = BoxAgreement(name), KeypointAgreement(name)
    for image in items:
        for item in image.annotations:
            x1, y1, x2, y2 = item.box
            if not item.crowd:
                agreement.add(
                    image_id=image.id,
                    annotation_id=item.id,
                    bbox=(x1, y1, x2 - x1, y2 - y1),
                    segmentation=item.segmentation,
                    size=(image.height, image.width),
                    warned=False,
                )
                if item.keypoints is not None:
                    keypoint_agreement.add(
                        image_id=image.id, annotation_id=item.id, box=item.box, keypoints=item.keypoints
                    )
    findings, _ = agreement.judge()
    raise_errors(name, findings)
    return (*findings, *keypoint_agreement.judge(strict=True))


class _Item:
    """One item of a ``Dataset``; ``where`` names it in messages."""

    def __init__(
        self, values: Mapping[str, Any], where: str, categories: Categories, pixels: PixelFormat
    ) -> None:
        self.where, self._categories, self._pixels = where, categories, pixels
        if not isinstance(values, Mapping) or not {"image", "labels"} <= values.keys() <= _KEYS:
            given = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise self._error(
                f"must be a mapping with 'image', 'labels' and some of {sorted(_KEYS)}, got {given}"
            )
        self._values = values

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"{self.where}: {problem}")

    def pixels(self) -> np.ndarray:
        """The decoded image ``[H W C]``."""
        image = self._values["image"]
        if isinstance(image, str | Path):
            try:
                return images.read_image(image, self._pixels)
            except ValueError as error:
                raise self._error(str(error)) from error
        try:
            return self._pixels.convert(np.asarray(image))
        except ValueError as error:
            raise self._error(f"image must be a path or an array of pixels: {error}") from error

    def annotated(self, default_id: int) -> CocoImage:
        """The annotations, whose ids are still 0; the image is decoded for its size."""
        height, width = self.pixels().shape[:2]
        labels = [self._label(label) for label in self._values["labels"]]
        count = len(labels)
        masks = [self._segmentation(mask, (height, width)) for mask in self._list("masks", count, None)]
        boxes = self._values.get("boxes")
        if boxes is None:
            boxes = [self._box_of(mask) for mask in masks]
        boxes = self._array(boxes, (count, 4), "boxes", "x1 y1 x2 y2")
        if (boxes[:, :2] > boxes[:, 2:]).any():
            raise self._error(f"boxes must have x1 <= x2 and y1 <= y2, got {boxes.tolist()}")
        keypoints: Sequence[np.ndarray | None] = [None] * count
        if self._values.get("keypoints") is not None:
            shape = count, len(self._categories.keypoint_names), 3
            points = self._array(self._values["keypoints"], shape, "keypoints", "x, y, visibility")
            if not np.isin(points[..., 2], (0, 1, 2)).all():
                raise self._error("keypoints must have visibility 0, 1 or 2")
            keypoints = list(points.astype(np.float32))
        crowd = [bool(value) for value in self._list("crowd", count, False)]
        image_id = self._values.get("id", default_id)
        if not isinstance(image_id, int | np.integer):
            raise self._error(f"id must be an integer, got {image_id!r}")
        return CocoImage(
            id=int(image_id),
            path=Path(self.where),
            file_name=self.where,
            height=height,
            width=width,
            annotations=tuple(
                CocoAnnotation(
                    id=0,
                    label=labels[row],
                    box=(float(x1), float(y1), float(x2), float(y2)),
                    crowd=crowd[row],
                    segmentation=masks[row],
                    keypoints=keypoints[row] if labels[row] in self._categories.keypoint_labels else None,
                )
                for row, (x1, y1, x2, y2) in enumerate(boxes)
            ),
        )

    def _list(self, key: str, count: int, absent: Any) -> Sequence[Any]:
        """The values of ``key``, one per object."""
        values = self._values.get(key)
        if values is None:
            return [absent] * count
        if len(values) != count:
            raise self._error(f"{key} has {len(values)} values for {count} labels")
        return values

    def _array(self, values: Any, shape: tuple[int, ...], key: str, content: str) -> np.ndarray:
        array = np.asarray(values, np.float64)
        if not array.size and not shape[0]:
            return np.zeros(shape)
        if array.shape != shape or not np.isfinite(array).all():
            raise self._error(
                f"{key} must be finite numbers {list(shape)} ({content}), got shape {list(array.shape)}"
            )
        return array

    def _label(self, label: Any) -> int:
        names = self._categories.names
        if isinstance(label, str) and label in names:
            return names.index(label) + 1
        if isinstance(label, int | np.integer) and 1 <= label <= len(names):
            return int(label)
        raise self._error(
            f"labels must be names of {list(names)} or numbers from 1 to {len(names)}, got {label!r}"
        )

    def _segmentation(self, mask: Any, size: Size) -> Segmentation | None:
        if mask is None:
            return None
        if isinstance(mask, dict):
            try:
                return coco_fields.read_segmentation(mask, size)
            except ValueError as error:
                raise self._error(str(error)) from error
        if isinstance(mask, list | tuple):
            return tuple(points for points in map(self._polygon, mask) if len(points) >= 3) or None
        bitmap = np.asarray(mask)
        if bitmap.shape != size:
            raise self._error(f"masks must be of the image's size {list(size)}, got {list(bitmap.shape)}")
        return Rle.from_bitmap(bitmap != 0)

    def _polygon(self, polygon: Any) -> np.ndarray:
        points = np.asarray(polygon, np.float64)
        if points.size % 2 or not np.isfinite(points).all():
            raise self._error(f"masks must be polygons [P 2], got {polygon}")
        return points.reshape(-1, 2)

    def _box_of(self, segmentation: Segmentation | None) -> Box:
        extent = None if segmentation is None else mask_extent(segmentation)
        if extent is None:
            raise self._error("boxes may be absent only if every object has a mask that is not empty")
        return extent
