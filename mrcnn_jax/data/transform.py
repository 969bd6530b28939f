"""The geometric transform of a training image, its pixels and its objects: turn, resize, crop, flip.

Shapes: N objects, G rows of ground truth, K keypoints, S cells of a box-frame mask per axis.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.affine import PointMap
from mrcnn_jax.data.coco import SMALLEST_SIDE
from mrcnn_jax.data.objects import Objects, unpack_masks
from mrcnn_jax.data.overfull import fit_rows, union
from mrcnn_jax.images import Size
from mrcnn_jax.proposals import ImageProposals, pad_proposals
from mrcnn_jax.runs.categories import keypoint_flip_order


@dataclass(frozen=True)
class ImageTransform:
    """Quarter turns, a resize, a crop and flips, in this order. Sizes are (height, width) in pixels."""

    original: Size
    resized: Size  # the whole image after turning and resizing
    top: int  # first row and column of the crop in the resized image ...
    left: int
    size: Size  # ... and its height and width
    flip: bool  # flip horizontally
    flip_vertical: bool = False
    turns: int = 0  # quarter turns, counter-clockwise

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right are exchanged: by one flip, but not by two, which are half a turn."""
        return self.flip != self.flip_vertical

    @property
    def is_cropped(self) -> bool:
        """Whether the crop is smaller than the resized image."""
        return self.size != self.resized


def resized_only(original: Size, resized: Size) -> ImageTransform:
    """A resize of the whole image."""
    return ImageTransform(original, resized, top=0, left=0, size=resized, flip=False)


def transform_pixels(pixels: np.ndarray, transform: ImageTransform, *, canvas: Size, rule: str) -> np.ndarray:
    """The transformed image ``[H W C]`` at the top left of a canvas of zeros, resized by ``rule``."""
    return images.pad(place_pixels(pixels, transform, rule=rule), canvas)


def place_pixels(pixels: np.ndarray, transform: ImageTransform, *, rule: str) -> np.ndarray:
    """The transformed image ``[h w C]``, resized by ``rule``, without padding."""
    resized = images.resize(np.rot90(pixels, transform.turns), transform.resized, rule=rule)
    height, width = transform.size
    crop = resized[transform.top : transform.top + height, transform.left : transform.left + width]
    crop = crop[::-1] if transform.flip_vertical else crop
    return crop[:, ::-1] if transform.flip else crop


def transform_objects(
    objects: Objects,
    transform: ImageTransform,
    *,
    max_objects: int,
    mask_grid: int | None,
    keypoints: bool,
    flip_pairs: tuple[tuple[int, int], ...],
    keypoint_offset: float = 0.0,
) -> dict[str, np.ndarray]:
    """The fields of ``GroundTruth`` without the batch axis, as NumPy arrays.

    Drops objects whose box lies entirely outside the crop and, with ``mask_grid``, those whose mask does. If
    more than ``max_objects`` are left, the smallest share rows as crowds (``fit_rows``), so that none becomes
    background; the row of several has the box around them and label 0.

    Boxes are clipped to the crop, but a mask's grid still covers the whole box (``mask_boxes``), so that
    cropping leaves it unchanged. A keypoint outside the crop, whose edges count as inside, becomes all 0,
    like one that is not labelled (D2's ``transform_keypoint_annotations``).

    Args:
        objects: Objects of the original image; masks of S x S cells.
        transform: The transform to apply.
        max_objects: G.
        mask_grid: S, or None for no masks.
        keypoints: Whether to fill in keypoints ``[G K 3]``.
        flip_pairs: The keypoints to swap if the image is mirrored.
        keypoint_offset: Added to the keypoints' x and y in the original image, in pixels.
    """
    frames = move_boxes(objects.boxes, partial(transform_points, transform=transform))
    boxes = np.clip(frames, 0, [transform.size[1], transform.size[0]] * 2)
    kept = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)
    if mask_grid is not None and transform.is_cropped:
        kept &= _mask_in_crop(unpack_masks(objects.masks, mask_grid), frames, transform) | objects.crowd
    chosen = np.flatnonzero(kept)
    shared: list[np.ndarray] = []
    if len(chosen) > max_objects:
        targets, groups = fit_rows(boxes[chosen], objects.crowd[chosen], max_objects)
        chosen, shared = chosen[targets], [chosen[group] for group in groups]

    rows = {
        "boxes": boxes[chosen].astype(np.float32),
        "labels": objects.labels[chosen],
        "crowd": objects.crowd[chosen],
        "valid": np.ones(len(chosen), bool),
    }
    if mask_grid is not None:
        masks = unpack_masks(objects.masks[chosen], mask_grid)
        rows["masks"] = _turn_and_flip(masks, transform)
        rows["mask_boxes"] = frames[chosen].astype(np.float32)
    if keypoints:
        points = objects.keypoints[chosen].astype(np.float64)
        xy, visibility = transform_points(points[..., :2] + keypoint_offset, transform), points[..., 2:]
        visible = _in_crop(xy, transform).all(axis=2, keepdims=True) & (visibility > 0)
        transformed = np.where(visible, np.concatenate([xy, visibility], axis=2), 0)
        if transform.is_mirrored:
            transformed = transformed[:, keypoint_flip_order(transformed.shape[1], flip_pairs)]
        rows["keypoints"] = transformed.astype(np.float32)
    # Crowds come first, then targets, then padding.
    padding = len(shared), max_objects - len(shared) - len(chosen)
    rows = {name: np.pad(x, [padding] + [(0, 0)] * (x.ndim - 1)) for name, x in rows.items()}
    for row, group in enumerate(shared):
        rows["boxes"][row] = union(boxes[group])
        rows["labels"][row] = objects.labels[group[0]] if len(group) == 1 else 0
        rows["crowd"][row] = rows["valid"][row] = True
        if "mask_boxes" in rows:
            rows["mask_boxes"][row] = union(frames[group])
    return rows


def transform_proposals(
    proposals: ImageProposals, points: PointMap, *, size: Size, count: int
) -> dict[str, np.ndarray]:
    """The fields of ``types.Proposals`` without the batch axis: the ``count`` best boxes within ``size``.

    ``points`` says where the image's points have gone.
    """
    return pad_proposals(move_boxes(proposals.boxes, points), proposals.objectness, size=size, count=count)


def move_boxes(boxes: np.ndarray, points: PointMap) -> np.ndarray:
    """The boxes around the corners of boxes ``[N 4]`` after a map, in float64."""
    corners = points(boxes[:, [[0, 1], [2, 3], [0, 3], [2, 1]]])
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def transform_points(points: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Points ``[... 2]`` (x, y) of the original image, transformed, in float64."""
    height, width = transform.original
    for _ in range(transform.turns % 4):
        points = np.stack([points[..., 1], width - points[..., 0]], axis=-1)
        height, width = width, height
    scale = transform.resized[1] / width, transform.resized[0] / height
    transformed = points * np.array(scale) - (transform.left, transform.top)
    if transform.flip:
        transformed[..., 0] = transform.size[1] - transformed[..., 0]
    if transform.flip_vertical:
        transformed[..., 1] = transform.size[0] - transformed[..., 1]
    return transformed


def _turn_and_flip(masks: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Masks ``[N S S]`` over their objects' boxes, after the turns and flips."""
    masks = np.rot90(masks, transform.turns, axes=(1, 2))
    masks = masks[:, ::-1] if transform.flip_vertical else masks
    return masks[:, :, ::-1] if transform.flip else masks


def _in_crop(points: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Whether each coordinate of the transformed points ``[... 2]`` lies within the crop or on its edge."""
    return (points >= 0) & (points <= (transform.size[1], transform.size[0]))


def _mask_in_crop(masks: np.ndarray, frames: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Whether each mask ``[N S S]`` has a cell centre in the crop, or is absent (all zero): ``[N]``."""
    masks = _turn_and_flip(masks, transform)
    fraction = (np.arange(masks.shape[-1]) + 0.5) / masks.shape[-1]
    low, side = frames[:, None, :2], frames[:, None, 2:] - frames[:, None, :2]
    centres = low + fraction[:, None] * side  # [N S 2]: x, y
    in_crop = _in_crop(centres, transform)
    visible = masks.astype(bool) & in_crop[:, :, None, 1] & in_crop[:, None, :, 0]
    return visible.any(axis=(1, 2)) | ~masks.any(axis=(1, 2))
