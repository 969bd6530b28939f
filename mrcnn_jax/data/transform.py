"""The geometric transform of a training image, its pixels and its objects: resize, then crop, then flip.

Shapes: N objects, G rows of ground truth, K keypoints, S cells of a box-frame mask per axis.
"""

from dataclasses import dataclass

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.coco import SMALLEST_SIDE
from mrcnn_jax.data.objects import Objects, unpack_masks
from mrcnn_jax.data.overfull import fit_rows, union
from mrcnn_jax.images import Size
from mrcnn_jax.proposals import ImageProposals, pad_proposals
from mrcnn_jax.runs.categories import keypoint_flip_order


@dataclass(frozen=True)
class ImageTransform:
    """A resize, crop and horizontal flip, in this order. Sizes are (height, width) in pixels."""

    original: Size
    resized: Size  # the whole image after resizing
    top: int  # first row and column of the crop in the resized image ...
    left: int
    size: Size  # ... and its height and width
    flip: bool  # flip horizontally

    @property
    def is_cropped(self) -> bool:
        """Whether the crop is smaller than the resized image."""
        return self.size != self.resized


def transform_pixels(pixels: np.ndarray, transform: ImageTransform, *, canvas: Size, rule: str) -> np.ndarray:
    """The transformed image ``[H W 3]`` uint8 at the top left of a canvas of zeros, resized by ``rule``."""
    resized = images.resize(pixels, transform.resized, rule=rule)
    height, width = transform.size
    crop = resized[transform.top : transform.top + height, transform.left : transform.left + width]
    return images.pad(crop[:, ::-1] if transform.flip else crop, canvas)


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
        flip_pairs: The keypoints to swap when flipping.
        keypoint_offset: Added to the keypoints' x and y in the original image, in pixels.
    """
    frames = _transform_boxes(objects.boxes, transform)
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
        rows["masks"] = masks[:, :, ::-1] if transform.flip else masks
        rows["mask_boxes"] = frames[chosen].astype(np.float32)
    if keypoints:
        points = objects.keypoints[chosen].astype(np.float64)
        xy, visibility = _transform_points(points[..., :2] + keypoint_offset, transform), points[..., 2:]
        visible = _in_crop(xy, transform).all(axis=2, keepdims=True) & (visibility > 0)
        transformed = np.where(visible, np.concatenate([xy, visibility], axis=2), 0)
        if transform.flip:
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
    proposals: ImageProposals, transform: ImageTransform, *, count: int
) -> dict[str, np.ndarray]:
    """The fields of ``types.Proposals`` without the batch axis: the ``count`` best boxes within the crop."""
    boxes = _transform_boxes(proposals.boxes, transform)
    return pad_proposals(boxes, proposals.objectness, size=transform.size, count=count)


def _transform_boxes(boxes: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Boxes ``[N 4]`` of the original image, transformed but not clipped, in float64."""
    corners = _transform_points(boxes.reshape(-1, 2, 2), transform)
    # A flip exchanges the left and right corners.
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _transform_points(points: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Points ``[... 2]`` (x, y) of the original image, transformed, in float64."""
    scale = transform.resized[1] / transform.original[1], transform.resized[0] / transform.original[0]
    transformed = points * np.array(scale) - (transform.left, transform.top)
    if transform.flip:
        transformed[..., 0] = transform.size[1] - transformed[..., 0]
    return transformed


def _in_crop(points: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Whether each coordinate of the transformed points ``[... 2]`` lies within the crop or on its edge."""
    return (points >= 0) & (points <= (transform.size[1], transform.size[0]))


def _mask_in_crop(masks: np.ndarray, frames: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Whether each mask ``[N S S]`` has a cell centre in the crop, or is absent (all zero): ``[N]``."""
    if transform.flip:
        masks = masks[:, :, ::-1]
    fraction = (np.arange(masks.shape[-1]) + 0.5) / masks.shape[-1]
    low, side = frames[:, None, :2], frames[:, None, 2:] - frames[:, None, :2]
    centres = low + fraction[:, None] * side  # [N S 2]: x, y
    in_crop = _in_crop(centres, transform)
    visible = masks.astype(bool) & in_crop[:, :, None, 1] & in_crop[:, None, :, 0]
    return visible.any(axis=(1, 2)) | ~masks.any(axis=(1, 2))
