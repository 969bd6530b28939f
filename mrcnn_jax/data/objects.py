"""The objects of one image as arrays, as stored in records and used to build training examples.

Shapes: N objects, K keypoints, S cells of a box-frame mask per axis.
"""

from dataclasses import dataclass

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation, CocoImage, clip_box
from mrcnn_jax.data.coco_fields import Box
from mrcnn_jax.data.rasterise import rasterise


@dataclass(frozen=True, eq=False)
class Objects:
    """Crowds, then objects, each from large to small, in pixels of the original image.

    In this order, ``fit_rows`` keeps the largest objects as targets. Crowds have neither masks nor keypoints,
    as they are not training targets.
    """

    boxes: np.ndarray  # [N 4] float32: x1 y1 x2 y2, clipped to the image, non-empty
    labels: np.ndarray  # [N] int32
    crowd: np.ndarray  # [N] bool
    ids: np.ndarray  # [N] int64 annotation ids
    areas: np.ndarray  # [N] float32 square pixels, from the file, or else of the box
    masks: np.ndarray  # [N S*S/8] uint8, packed by pack_masks; all zero: no mask
    keypoints: np.ndarray  # [N K 3] float32: x, y, visibility; zeros where visibility is 0

    def __len__(self) -> int:
        return len(self.boxes)


def read_objects(image: CocoImage, *, mask_grid: int, num_keypoints: int) -> Objects:
    """The objects of an image from ``read_coco``, with masks of S = ``mask_grid`` cells per axis.

    Objects whose box is entirely outside the image are dropped. A mask's frame is the clipped box.
    """
    boxed = [(item, box) for item in image.annotations if (box := clipped_box(item, image)) is not None]
    boxed.sort(key=lambda pair: (not pair[0].crowd, -(pair[1][2] - pair[1][0]) * (pair[1][3] - pair[1][1])))
    items = [item for item, _ in boxed]
    boxes = np.array([box for _, box in boxed], np.float32).reshape(-1, 4)
    masks = np.zeros((len(items), mask_grid, mask_grid), np.uint8)
    keypoints = np.zeros((len(items), num_keypoints, 3), np.float32)
    for row, (item, box) in enumerate(boxed):
        if item.crowd:
            continue
        if mask_grid and item.segmentation is not None:
            masks[row] = rasterise(item.segmentation, box, mask_grid)
        if num_keypoints and item.keypoints is not None:
            keypoints[row] = np.where(item.keypoints[:, 2:] > 0, item.keypoints, 0)
    box_areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    areas = [box_areas[row] if item.area is None else item.area for row, item in enumerate(items)]
    return Objects(
        boxes=boxes,
        labels=np.array([item.label for item in items], np.int32),
        crowd=np.array([item.crowd for item in items], bool),
        ids=np.array([item.id for item in items], np.int64),
        areas=np.array(areas, np.float32),
        masks=pack_masks(masks),
        keypoints=keypoints,
    )


def clipped_box(annotation: CocoAnnotation, image: CocoImage) -> Box | None:
    """The object's box clipped to the image, ``x1 y1 x2 y2`` in pixels; None if nothing is left.

    The corner, and the sides added to it, are rounded to float32 as in D2 and torchvision: when anchors
    overlap an object almost equally, the last bit decides which one is best.
    """
    box = clip_box(annotation.box, (image.height, image.width))
    if box is None:
        return None
    x1, y1, x2, y2 = box
    left, top, width, height = map(np.float32, (x1, y1, x2 - x1, y2 - y1))
    return float(left), float(top), float(left + width), float(top + height)


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Binary masks ``[N S S]`` packed row by row, eight cells per byte: uint8 ``[N S*S/8]``, rounded up."""
    return np.packbits(masks.reshape(len(masks), masks.shape[1] ** 2), axis=1)


def unpack_masks(packed: np.ndarray, grid: int) -> np.ndarray:
    """The uint8 masks ``[N S S]`` from ``pack_masks``, where S is ``grid``."""
    return np.unpackbits(packed, axis=1, count=grid * grid).reshape(-1, grid, grid)
