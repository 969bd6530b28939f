"""Where training images come from: a COCO folder, or records made of one."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoDataset
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.objects import Objects, clipped_box, read_objects
from mrcnn_jax.images import Size
from mrcnn_jax.types import Categories


@dataclass(frozen=True, eq=False)
class Picture:
    """One image with its objects, in its original pixels."""

    name: str  # of the file, for messages
    pixels: np.ndarray  # [H W 3] uint8
    objects: Objects


@runtime_checkable  # so that tests may check calls against their annotations
class Source(Protocol):
    """N images that can be read in any order, from any thread."""

    name: str  # for messages
    categories: Categories
    ids: np.ndarray  # [N] int64
    sizes: np.ndarray  # [N 2] int32: height and width
    learnable: np.ndarray  # [N] bool: has an object to learn from, which is no crowd
    num_objects: np.ndarray  # [N] int32, crowds included
    has_masks: bool  # of any object
    findings: tuple[Finding, ...]  # what was left out when it was opened

    def read(self, index: int) -> Picture:
        """An image. Raises ValueError, naming it, if it cannot be read or is not of its size."""
        ...

    def file(self, index: int) -> bytes:
        """The image's file, which ``read`` decodes."""
        ...

    def objects(self, index: int) -> Objects:
        """The objects that ``read`` returns, without decoding the image."""
        ...


class FolderSource:
    """The images of an annotation file, as ``read_coco`` reads it."""

    def __init__(self, dataset: CocoDataset, *, mask_grid: int) -> None:
        self.name, self.categories, self.findings = dataset.name, dataset.categories, dataset.findings
        self._images, self._mask_grid = dataset.images, mask_grid
        self.ids = np.array([image.id for image in dataset.images], np.int64)
        self.sizes = np.array([(image.height, image.width) for image in dataset.images], np.int32).reshape(
            -1, 2
        )
        shown = [
            [item for item in image.annotations if clipped_box(item, image) is not None]
            for image in dataset.images
        ]
        self.learnable = np.array([not all(item.crowd for item in items) for items in shown], bool)
        self.num_objects = np.array([len(items) for items in shown], np.int32)
        self.has_masks = any(
            item.segmentation is not None and not item.crowd for items in shown for item in items
        )

    def read(self, index: int) -> Picture:
        image = self._images[index]
        pixels = images.decode_image(self.file(index), name=str(image.path))
        check_size(pixels, (image.height, image.width), f"{image.path}: image {image.id} of {self.name}")
        return Picture(name=str(image.path), pixels=pixels, objects=self.objects(index))

    def file(self, index: int) -> bytes:
        return images.read_file(self._images[index].path)

    def objects(self, index: int) -> Objects:
        points = len(self.categories.keypoint_names)
        return read_objects(self._images[index], mask_grid=self._mask_grid, num_keypoints=points)


def check_size(pixels: np.ndarray, size: Size, where: str) -> None:
    """Raises ValueError, beginning with ``where``, if an upright image is not of the size it should be."""
    height, width = pixels.shape[:2]
    if (height, width) != size:
        raise ValueError(
            f"{where}: the file has {height}x{width} pixels (height x width, upright), "
            f"the annotations say {size[0]}x{size[1]}"
        )
