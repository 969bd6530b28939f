"""Objects of a COCO image as the fixed-size rows of ``GroundTruth``, at any size and mirrored or not.

Shapes: G rows of ground truth, K keypoints, S cells of a box-frame mask per axis.
"""

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage, Segmentation
from mrcnn_jax.rle import Rle
from mrcnn_jax.types import Categories

Box = tuple[float, float, float, float]

_SMALLEST_SIDE = 1e-3  # pixels; a narrower box is an empty one


def clipped_box(annotation: CocoAnnotation, image: CocoImage) -> Box | None:
    """The part of the object's box inside the image, ``x1 y1 x2 y2`` in its pixels; None if there is none.

    Its corner, and the sides added to it, are float32, as in D2 and torchvision: of anchors that overlap an
    object alike, the last bit decides which one is the best.
    """
    x1, y1, x2, y2 = annotation.box
    x1, x2 = max(x1, 0.0), min(x2, float(image.width))
    y1, y2 = max(y1, 0.0), min(y2, float(image.height))
    if min(x2 - x1, y2 - y1) < _SMALLEST_SIDE:
        return None
    x1, y1, width, height = map(np.float32, (x1, y1, x2 - x1, y2 - y1))
    return float(x1), float(y1), float(x1 + width), float(y1 + height)


def has_objects(image: CocoImage) -> bool:
    """Whether the image has an object to learn from: one that is no crowd and not outside the image."""
    return any(not item.crowd and clipped_box(item, image) is not None for item in image.annotations)


def count_overfull_images(dataset: CocoDataset, *, max_objects: int) -> int:
    """The number of images with objects and crowds beyond ``max_objects``, which are dropped in training."""
    return sum(
        sum(clipped_box(item, image) is not None for item in image.annotations) > max_objects
        for image in dataset.images
    )


def annotations_to_arrays(
    image: CocoImage,
    categories: Categories,
    *,
    size: tuple[int, int],
    flip: bool,
    max_objects: int,
    mask_grid: int | None,
    keypoints: bool,
    keypoint_offset: float = 0.0,
) -> dict[str, np.ndarray]:
    """The objects of ``image`` resized to ``size``, then mirrored if ``flip``, as NumPy arrays.

    They are the fields of ``GroundTruth`` without the batch axis. The rows are the crowds, then the objects,
    each from large to small; what is beyond ``max_objects`` is dropped, as are boxes with nothing inside the
    image. So no crowd gives way to an object: what lies in it would be taken for background. Boxes are
    clipped to the image, and a mask lies in the frame of its clipped box. An all-zero mask means that none is
    known. Crowds have neither mask nor keypoints: they are no training targets.

    Args:
        image: As read by ``read_coco``.
        categories: Those of its data set; names the keypoints that change places in a mirror.
        size: Height and width that the image is resized to.
        flip: Mirror left and right.
        max_objects: G.
        mask_grid: S, or None for no masks.
        keypoints: Whether to fill in keypoints ``[G K 3]``; a point of visibility 0 is 0 0 0.
        keypoint_offset: Added to their x and y in the original image, in pixels.
    """
    scale_x, scale_y = size[1] / image.width, size[0] / image.height
    boxed = [(item, box) for item in image.annotations if (box := clipped_box(item, image)) is not None]
    boxed.sort(key=lambda pair: (not pair[0].crowd, -(pair[1][2] - pair[1][0]) * (pair[1][3] - pair[1][1])))
    boxed = boxed[:max_objects]

    rows = {
        "boxes": np.zeros((max_objects, 4), np.float32),
        "labels": np.zeros(max_objects, np.int32),
        "crowd": np.zeros(max_objects, bool),
        "valid": np.arange(max_objects) < len(boxed),
    }
    if mask_grid is not None:
        rows["masks"] = np.zeros((max_objects, mask_grid, mask_grid), np.uint8)
    if keypoints:
        rows["keypoints"] = np.zeros((max_objects, len(categories.keypoint_names), 3), np.float32)
    for row, (item, box) in enumerate(boxed):
        x1, y1, x2, y2 = box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y
        rows["boxes"][row] = (size[1] - x2, y1, size[1] - x1, y2) if flip else (x1, y1, x2, y2)
        rows["labels"][row] = item.label
        rows["crowd"][row] = item.crowd
        if item.crowd:
            continue
        if mask_grid is not None and item.segmentation is not None:
            mask = rasterise(item.segmentation, box, mask_grid)
            rows["masks"][row] = mask[:, ::-1] if flip else mask
        if keypoints and item.keypoints is not None:
            offset = np.array([keypoint_offset, keypoint_offset, 0])
            points = (item.keypoints + offset) * (scale_x, scale_y, 1)
            points = flip_keypoints(points, size[1], categories.flip_pairs) if flip else points
            rows["keypoints"][row] = np.where(points[:, 2:] > 0, points, 0)
    return rows


def flip_keypoints(points: np.ndarray, width: float, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Keypoints ``[K 3]`` mirrored in an image of this width: left and right ones change places."""
    source = np.arange(len(points))
    for left, right in pairs:
        source[left], source[right] = right, left
    mirrored = points[source]
    mirrored[:, 0] = width - mirrored[:, 0]
    return mirrored


def rasterise(segmentation: Segmentation, box: Box, grid: int) -> np.ndarray:
    """The object's shape in the frame of ``box``: uint8 0 or 1 ``[grid grid]``, row 0 at the box's top.

    A cell of a polygon is 1 if its centre is inside; a cell of a bitmap, if at least half its area is.
    """
    if isinstance(segmentation, Rle):
        return _resample(segmentation.decode(), box, grid)
    mask = np.zeros((grid, grid), bool)
    corner, extent = np.array(box[:2]), np.subtract(box[2:], box[:2])
    for polygon in segmentation:
        mask |= _fill((polygon - corner) * (grid / extent), grid)
    return mask.astype(np.uint8)


def _fill(polygon: np.ndarray, grid: int) -> np.ndarray:
    """The cells ``[grid grid]`` with their centre inside a polygon ``[N 2]`` (by the even-odd rule).

    Along a row of centres, inside begins and ends where an edge crosses it.
    """
    centres = np.arange(grid) + 0.5
    x, y = polygon.T
    next_x, next_y = np.roll(polygon, -1, axis=0).T
    edge, row = np.nonzero((y[:, None] <= centres) != (next_y[:, None] <= centres))
    share = (centres[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + share * (next_x[edge] - x[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, grid).astype(np.int64)  # the first centre at or behind it
    changes = np.bincount(row * (grid + 1) + column, minlength=grid * (grid + 1)).reshape(grid, grid + 1)
    return np.cumsum(changes, axis=1)[:, :grid] % 2 == 1


def _resample(bitmap: np.ndarray, box: Box, grid: int) -> np.ndarray:
    """A bitmap ``[H W]`` averaged over the cells of a grid on the box, at least half counting as 1."""
    over_rows = _cell_means(bitmap, box[1], box[3], grid)
    share = _cell_means(over_rows.T, box[0], box[2], grid).T
    return (share >= 0.5 - 1e-6).astype(np.uint8)  # rounding must not decide over exact halves


def _cell_means(values: np.ndarray, start: float, stop: float, grid: int) -> np.ndarray:
    """Means ``[grid ...]`` over ``grid`` equal cells from start to stop along the first axis of ``values``.

    Row ``i`` of ``values`` lies from ``i`` to ``i + 1``; a mean is the integral's growth between two edges.
    """
    edges = np.linspace(start, stop, grid + 1)
    row = np.minimum(edges.astype(np.int64), len(values) - 1)
    first = row[0]
    values, row, edges = values[first : row[-1] + 1], row - first, edges - first
    before = np.cumsum(values, axis=0, dtype=np.float64) - values
    integral = before[row] + (edges - row)[:, None] * values[row]
    return np.diff(integral, axis=0) * (grid / (stop - start))
