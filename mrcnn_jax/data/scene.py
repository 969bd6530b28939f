"""An image with its objects as annotated: polygons or full-size masks, which augmentation moves exactly.

The usual resize, crop and flips work on box-frame masks (``transform.py``). What needs the whole mask is done
here, before a grid is made of it: cutting out, turning by an angle, and covering objects.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mrcnn_jax.data.affine import PointMap, is_mirroring, rotate_pixels, rotated_size, rotation, warp_mask
from mrcnn_jax.data.box_agreement import mask_extent
from mrcnn_jax.data.coco import CocoAnnotation, clip_box
from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.data.polygons import clip_polygons
from mrcnn_jax.data.transform import ImageTransform, move_boxes, place_pixels, transform_points
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import keypoint_flip_order

# Whose boxes become the smallest around what is left of their masks: of no object, of those that are cut or
# turned by an angle, or of all. Objects without a mask keep the box around the corners of theirs.
Refit = Literal["none", "cut", "all"]
FlipPairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its objects, in the same pixels; boxes and masks do not reach beyond it."""

    pixels: np.ndarray  # [H W C], uint8, float32 or, after resizing by torchvision's rule, float32
    items: tuple[CocoAnnotation, ...]

    @property
    def size(self) -> Size:
        return self.pixels.shape[0], self.pixels.shape[1]


class Window(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def window(box: Box, size: Size) -> Window:
    """The pixels that a box touches in an image of ``size``."""
    x1, y1, x2, y2 = box
    top, left = max(0, math.floor(y1)), max(0, math.floor(x1))
    bottom, right = min(size[0], math.ceil(y2)), min(size[1], math.ceil(x2))
    return Window(top, left, max(0, bottom - top), max(0, right - left))


def mask_window(item: CocoAnnotation, size: Size) -> Window:
    """The pixels that the mask of an object touches or, if it has none, its box."""
    extent = None if item.segmentation is None else mask_extent(item.segmentation)
    return window(extent or item.box, size)


def make_scene(
    pixels: np.ndarray, items: tuple[CocoAnnotation, ...], *, masks: bool, keypoint_offset: float = 0.0
) -> Scene:
    """The scene of an image as read, with or without the objects' masks.

    ``keypoint_offset`` is added to the keypoints' x and y.
    """
    if not masks:
        items = tuple(dataclasses.replace(item, segmentation=None) for item in items)
    size = pixels.shape[0], pixels.shape[1]
    return Scene(pixels, move_items(items, lambda points: points, size, keypoint_offset=keypoint_offset))


def crop(scene: Scene, top: int, left: int, height: int, width: int) -> Scene:
    """A part of the image, with the objects of which a part is inside.

    Boxes are the smallest around what is left of the masks or, without a mask, of the boxes (D2).
    """
    corner = np.array([left, top])
    items = move_items(scene.items, lambda points: points - corner, (height, width), refit="all")
    return Scene(scene.pixels[top : top + height, left : left + width], items)


def rotate(scene: Scene, degrees: float, *, fill: tuple[float, ...]) -> Scene:
    """The image turned counter-clockwise, on a larger one with corners of the colour ``fill``.

    Boxes are the smallest around the turned masks or, without a mask, around the turned boxes.
    """
    size = rotated_size(scene.size, degrees)
    items = move_items(scene.items, rotation(scene.size, degrees), size, refit="all")
    return Scene(rotate_pixels(scene.pixels, degrees, fill=fill), items)


def place(scene: Scene, transform: ImageTransform, *, rule: str, flip_pairs: FlipPairs) -> Scene:
    """The image and its objects as they are on the canvas; ``rule`` as in ``place_pixels``."""

    def points(original: np.ndarray) -> np.ndarray:
        return transform_points(original, transform)

    items = move_items(scene.items, points, transform.size, refit="cut", flip_pairs=flip_pairs)
    return Scene(place_pixels(scene.pixels, transform, rule=rule), items)


def move_items(
    items: tuple[CocoAnnotation, ...],
    points: PointMap,
    size: Size,
    *,
    refit: Refit = "none",
    flip_pairs: FlipPairs = (),
    keypoint_offset: float = 0.0,
) -> tuple[CocoAnnotation, ...]:
    """The objects moved by a map of points, and cut to an image of ``size``.

    Keypoints outside become all 0; those of ``flip_pairs`` are exchanged if the map is a mirror image.
    """
    mirrored = is_mirroring(points)
    moved = []
    for item in items:
        segmentation, is_cut = None, False
        if item.segmentation is not None:
            segmentation, is_cut = _move_mask(item.segmentation, points, size)
            if segmentation is None:
                continue
        box: Box | None = _move_box(item.box, points)
        if segmentation is not None and (refit == "all" or (refit == "cut" and is_cut)):
            box = mask_extent(segmentation)
        box = None if box is None else clip_box(box, size)
        if box is None:
            continue
        keypoints = item.keypoints
        if keypoints is not None:
            keypoints = _move_keypoints(keypoints, points, size, keypoint_offset)
            if mirrored:
                keypoints = keypoints[keypoint_flip_order(len(keypoints), flip_pairs)]
        moved.append(
            dataclasses.replace(item, box=box, segmentation=segmentation, keypoints=keypoints, area=None)
        )
    return tuple(moved)


def _move_mask(segmentation: Segmentation, points: PointMap, size: Size) -> tuple[Segmentation | None, bool]:
    """The mask in its new place, None if nothing is left of it, and whether a part was cut off."""
    if isinstance(segmentation, Rle):
        extent = mask_extent(segmentation)
        box = None if extent is None else _move_box(extent, points)
        clipped = None if box is None else clip_box(box, size)
        if extent is None or clipped is None:
            return None, True
        # Only the part of the image that the mask is in, before and after.
        before = window(extent, (segmentation.height, segmentation.width))
        after = window(clipped, size)
        corner, moved_corner = np.array([before.left, before.top]), np.array([after.left, after.top])
        mask = warp_mask(
            segmentation.decode()[before.rows, before.columns],
            lambda inner: points(inner + corner) - moved_corner,
            (after.height, after.width),
        )
        rle = Rle.from_crop(mask, top=after.top, left=after.left, image_size=size)
        return (rle if mask.any() else None), clipped != box
    polygons = tuple(points(polygon) for polygon in segmentation)
    parts = clip_polygons(polygons, size)
    is_cut = len(parts) != len(polygons) or any(a is not b for a, b in zip(parts, polygons, strict=True))
    return parts or None, is_cut


def _move_box(box: Box, points: PointMap) -> Box:
    x1, y1, x2, y2 = move_boxes(np.array([box]), points)[0].tolist()
    return x1, y1, x2, y2


def _move_keypoints(keypoints: np.ndarray, points: PointMap, size: Size, offset: float) -> np.ndarray:
    xy = points(keypoints[:, :2].astype(np.float64) + offset)
    seen = ((xy >= 0) & (xy <= size[::-1])).all(axis=1) & (keypoints[:, 2] > 0)
    moved = np.concatenate([xy, keypoints[:, 2:]], axis=1)
    return np.where(seen[:, None], moved, 0).astype(np.float32)
