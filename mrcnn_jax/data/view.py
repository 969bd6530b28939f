"""How a batch shows an image: resized, then cut, then mirrored; its pixels and its objects alike.

Shapes: N objects, G rows of ground truth, K keypoints, S cells of a box-frame mask per axis.
"""

from dataclasses import dataclass

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.coco import SMALLEST_SIDE
from mrcnn_jax.data.objects import Objects, unpack_masks
from mrcnn_jax.images import Size


@dataclass(frozen=True)
class View:
    """The changes made to an image, in this order. Sizes are (height, width) in pixels."""

    original: Size
    resized: Size  # of the whole image
    top: int  # the first row and column of the resized image that are kept ...
    left: int
    size: Size  # ... and how many
    flip: bool  # mirror left and right

    @property
    def cut(self) -> bool:
        """Whether anything is cut off."""
        return self.size != self.resized


def show_pixels(pixels: np.ndarray, view: View, *, canvas: Size, rule: str) -> np.ndarray:
    """An image ``[H W 3]`` uint8 on a canvas of zeros, at the top left, resized by ``rule``."""
    resized = images.resize(pixels, view.resized, rule=rule)
    height, width = view.size
    shown = resized[view.top : view.top + height, view.left : view.left + width]
    return images.pad(shown[:, ::-1] if view.flip else shown, canvas)


def show_objects(
    objects: Objects,
    view: View,
    *,
    max_objects: int,
    mask_grid: int | None,
    keypoints: bool,
    flip_pairs: tuple[tuple[int, int], ...],
    keypoint_offset: float = 0.0,
) -> dict[str, np.ndarray]:
    """The rows of ``GroundTruth`` without the batch axis, as NumPy arrays.

    What is cut off altogether is dropped, with masks also an object whose mask is; then what is beyond
    ``max_objects``. Boxes end where the view does, but the grid of a mask still lies over the whole box
    (``mask_boxes``), so that cutting does not touch it. A keypoint beyond the view, whose edges belong to it,
    is all 0, as one that is not labelled (D2's ``transform_keypoint_annotations``).

    Args:
        objects: Of the original image; masks of S x S cells.
        view: How they are shown.
        max_objects: G.
        mask_grid: S, or None for no masks.
        keypoints: Whether to fill in keypoints ``[G K 3]``.
        flip_pairs: The keypoints that change places in a mirror.
        keypoint_offset: Added to their x and y in the original image, in pixels.
    """
    frames = _show_points(objects.boxes.reshape(-1, 2, 2), view)
    frames = np.concatenate(
        [frames.min(axis=1), frames.max(axis=1)], axis=1
    )  # mirrored corners change places
    boxes = np.clip(frames, 0, [view.size[1], view.size[0]] * 2)
    kept = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)
    if mask_grid is not None and view.cut:
        kept &= _mask_is_shown(unpack_masks(objects.masks, mask_grid), frames, view) | objects.crowd
    chosen = np.flatnonzero(kept)[:max_objects]

    rows = {
        "boxes": boxes[chosen].astype(np.float32),
        "labels": objects.labels[chosen],
        "crowd": objects.crowd[chosen],
        "valid": np.ones(len(chosen), bool),
    }
    if mask_grid is not None:
        masks = unpack_masks(objects.masks[chosen], mask_grid)
        rows["masks"] = masks[:, :, ::-1] if view.flip else masks
        rows["mask_boxes"] = frames[chosen].astype(np.float32)
    if keypoints:
        points = objects.keypoints[chosen].astype(np.float64)
        places = _show_points(points[..., :2] + keypoint_offset, view)
        inside = _is_inside(places, view).all(axis=2, keepdims=True)
        shown = np.where(inside & (points[..., 2:] > 0), np.concatenate([places, points[..., 2:]], axis=2), 0)
        if view.flip:
            shown = shown[:, mirrored_order(shown.shape[1], flip_pairs)]
        rows["keypoints"] = shown.astype(np.float32)
    padding = max_objects - len(chosen)
    return {name: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) for name, x in rows.items()}


def mirrored_order(count: int, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The places ``[K]`` from which keypoints come in a mirror."""
    order = np.arange(count)
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def _show_points(points: np.ndarray, view: View) -> np.ndarray:
    """Points ``[... 2]`` (x, y) of the original image as they are shown, in float64."""
    scale = view.resized[1] / view.original[1], view.resized[0] / view.original[0]
    shown = points * np.array(scale) - (view.left, view.top)
    if view.flip:
        shown[..., 0] = view.size[1] - shown[..., 0]
    return shown


def _is_inside(points: np.ndarray, view: View) -> np.ndarray:
    """Whether each of x and y ``[... 2]`` as shown lies in the view or on its edge."""
    return (points >= 0) & (points <= (view.size[1], view.size[0]))


def _mask_is_shown(masks: np.ndarray, frames: np.ndarray, view: View) -> np.ndarray:
    """Whether any cell of each mask ``[N S S]`` has its centre in the view, or no mask is known: ``[N]``."""
    if view.flip:
        masks = masks[:, :, ::-1]
    share = (np.arange(masks.shape[-1]) + 0.5) / masks.shape[-1]
    low, side = frames[:, None, :2], frames[:, None, 2:] - frames[:, None, :2]
    centres = low + share[:, None] * side  # [N S 2]: x, y
    inside = _is_inside(centres, view)
    shown = masks.astype(bool) & inside[:, :, None, 1] & inside[:, None, :, 0]
    return shown.any(axis=(1, 2)) | ~masks.any(axis=(1, 2))
