"""The objects of one image as arrays: what records hold, and what examples are made of.

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

    So no crowd gives way to an object where there is room for so many only: what lies in it would be taken
    for background. Crowds have neither mask nor keypoints: they are no training targets.
    """

    boxes: np.ndarray  # [N 4] float32: x1 y1 x2 y2, clipped to the image, not empty
    labels: np.ndarray  # [N] int32
    crowd: np.ndarray  # [N] bool
    ids: np.ndarray  # [N] int64, of the annotations
    areas: np.ndarray  # [N] float32, as the file says, or else of the box
    masks: np.ndarray  # [N S*S/8] uint8: the bits of pack_masks; all zero where no mask is known
    keypoints: np.ndarray  # [N K 3] float32: x, y, visibility; zeros where visibility is 0

    def __len__(self) -> int:
        return len(self.boxes)


def read_objects(image: CocoImage, *, mask_grid: int, num_keypoints: int) -> Objects:
    """The objects of an image of ``read_coco``, with masks of S = ``mask_grid`` cells.

    Objects without anything inside the image are left out. A mask lies in the frame of its clipped box.
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
    of_boxes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    areas = [of_boxes[row] if item.area is None else item.area for row, item in enumerate(items)]
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
    """The part of the object's box inside the image, ``x1 y1 x2 y2`` in its pixels; None if there is none.

    Its corner, and the sides added to it, are float32, as in D2 and torchvision: of anchors that overlap an
    object alike, the last bit decides which one is the best.
    """
    box = clip_box(annotation.box, (image.height, image.width))
    if box is None:
        return None
    x1, y1, x2, y2 = box
    left, top, width, height = map(np.float32, (x1, y1, x2 - x1, y2 - y1))
    return float(left), float(top), float(left + width), float(top + height)


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Masks ``[N S S]`` of 0 and 1, row after row, eight cells to a byte: uint8 ``[N S*S/8]``, rounded up."""
    return np.packbits(masks.reshape(len(masks), masks.shape[1] ** 2), axis=1)


def unpack_masks(packed: np.ndarray, grid: int) -> np.ndarray:
    """The uint8 masks ``[N S S]`` that were packed, S being ``grid``."""
    return np.unpackbits(packed, axis=1, count=grid * grid).reshape(-1, grid, grid)
