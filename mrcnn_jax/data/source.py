"""Random access to images and their objects, for training and evaluation, in a COCO folder or in records."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset
from mrcnn_jax.data.federated import Federated
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.objects import Objects, clipped_box, read_objects
from mrcnn_jax.images import Size
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.runs.categories import Categories


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image and its objects, at the original size."""

    name: str  # identifies the image in messages
    pixels: np.ndarray  # [H W C], by default RGB uint8
    objects: Objects


@runtime_checkable  # so that tests may check calls against their annotations
class DataSource(Protocol):
    """N images with their objects, readable in any order and from any thread.

    Training and evaluation read data only through this interface; ``FolderSource`` and ``RecordSource`` give
    equal batches and metrics. A ``CocoDataset``, in contrast, is just the parsed annotation file.
    """

    name: str  # identifies the data in messages
    categories: Categories
    ids: np.ndarray  # [N] int64, all different
    sizes: np.ndarray  # [N 2] int32: height and width
    learnable: np.ndarray  # [N] bool: has at least one object that is not a crowd
    num_objects: np.ndarray  # [N] int32, crowds included
    has_masks: bool  # whether any object has a mask
    counts: np.ndarray | None  # [C 2] int64: objects and crowds of each category; None: not counted
    visible_keypoints: np.ndarray | None  # [N] int32, over all objects; None: not counted
    # [P 2] int32: each pair of an image's index and the label of an object in it that is not a crowd, in
    # order; None: not listed.
    image_labels: np.ndarray | None
    federated: Federated | None  # of LVIS; None: every image is annotated for all categories
    findings: tuple[Finding, ...]  # warnings, and what was dropped on opening

    def read(self, index: int) -> AnnotatedImage:
        """The decoded image. Raises ValueError, naming it, if it is unreadable or of the wrong size."""
        ...

    def objects(self, index: int) -> Objects:
        """The same objects as from ``read``, without decoding the image."""
        ...

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        """All objects of the image as annotated, in order: not clipped, masks at full resolution.

        Evaluation compares detections with these, and calls this several times.
        """
        ...

    def __hash__(self) -> int:
        """By identity, as for any class without ``__eq__``: evaluation caches a source's ground truth."""
        ...


class FolderSource:
    """The ``DataSource`` of a COCO folder read by ``read_coco``; ``mask_grid`` 0: no box-frame masks."""

    def __init__(self, dataset: CocoDataset, *, mask_grid: int, pixels: PixelFormat = RGB) -> None:
        self._pixels = pixels
        self.name, self.categories, self.findings = dataset.name, dataset.categories, dataset.findings
        self._images, self._mask_grid = dataset.images, mask_grid
        self.ids = np.array([image.id for image in dataset.images], np.int64)
        self.sizes = np.array([(image.height, image.width) for image in dataset.images], np.int32).reshape(
            -1, 2
        )
        visible = [
            [item for item in image.annotations if clipped_box(item, image) is not None]
            for image in dataset.images
        ]
        self.learnable = np.array([not all(item.crowd for item in items) for items in visible], bool)
        self.num_objects = np.array([len(items) for items in visible], np.int32)
        self.has_masks = any(
            item.segmentation is not None and not item.crowd for items in visible for item in items
        )

        counts = np.zeros((len(self.categories), 2), np.int64)
        for (label, crowd), number in Counter((x.label, x.crowd) for items in visible for x in items).items():
            counts[label - 1, int(crowd)] = number
        self.counts: np.ndarray | None = counts
        self.visible_keypoints: np.ndarray | None = np.array(
            [
                sum(int((x.keypoints[:, 2] > 0).sum()) for x in image.annotations if x.keypoints is not None)
                for image in dataset.images
            ],
            np.int32,
        )

        pairs = {(i, x.label) for i, items in enumerate(visible) for x in items if not x.crowd}
        self.image_labels: np.ndarray | None = np.array(sorted(pairs), np.int32).reshape(-1, 2)
        self.federated: Federated | None = None
        if dataset.frequencies is not None:
            self.federated = Federated(
                dataset.frequencies,
                negative=tuple(image.negative for image in dataset.images),
                not_exhaustive=tuple(image.not_exhaustive for image in dataset.images),
            )

    def read(self, index: int) -> AnnotatedImage:
        image = self._images[index]
        pixels = images.decode_image(self.file(index), self._pixels, name=str(image.path))
        check_size(pixels, (image.height, image.width), f"{image.path}: image {image.id} of {self.name}")
        return AnnotatedImage(name=str(image.path), pixels=pixels, objects=self.objects(index))

    def file(self, index: int) -> bytes:
        """The bytes of the image file, undecoded."""
        return images.read_file(self._images[index].path)

    def objects(self, index: int) -> Objects:
        points = len(self.categories.keypoint_names)
        return read_objects(self._images[index], mask_grid=self._mask_grid, num_keypoints=points)

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        return self._images[index].annotations


def check_size(pixels: np.ndarray, size: Size, where: str) -> None:
    """Raises ValueError, prefixed with ``where``, unless the upright image has the annotated ``size``."""
    height, width = pixels.shape[:2]
    if (height, width) != size:
        raise ValueError(
            f"{where}: the file has {height}x{width} pixels (height x width, upright), "
            f"the annotations say {size[0]}x{size[1]}"
        )
