"""Pastes predicted masks from their boxes into the image (Mask R-CNN, section 3.1, "Inference").

Shapes: M x M cells of a predicted mask, h x w pixels of a crop.

NumPy on the host: an object's time and memory scale with the size of its box, not of the image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mrcnn_jax.images import interpolation_indices


@dataclass(frozen=True, eq=False)
class PastedMask:
    """A crop of a mask of the whole image; every pixel outside the crop is false."""

    top: int  # the image row of the crop's first row
    left: int  # the image column of the crop's first column
    mask: Bool[np.ndarray, "h w"]

    def write(self, bitmap: Bool[np.ndarray, "height width"]) -> None:
        """Copies the crop into a mask of the whole image."""
        rows, columns = self.mask.shape
        bitmap[self.top : self.top + rows, self.left : self.left + columns] = self.mask


def paste_mask(
    mask: Float[np.ndarray, "m m"],
    box: Float[np.ndarray, "4"],
    image_size: tuple[int, int],
    threshold: float = 0.5,
    *,
    rule: str = "detectron2",
) -> PastedMask:
    """The mask of one object in the image, thresholded at ``threshold``, as a crop.

    ``mask`` [M M] holds probabilities over ``box`` (``x1 y1 x2 y2`` in pixels of an image of ``image_size`` =
    (height, width)). Raises ``ValueError`` unless the threshold is above 0 and ``rule`` is one of these:

    - "detectron2": a pixel's probability is interpolated bilinearly between the cell centres at the pixel's
      centre, with zeros beyond the outermost cells (``grid_sample(align_corners=False)``). It fades to zero
      half a cell outside the box, so the crop is the box grown by half a cell and clipped to the image. The
      probability must be at least ``threshold``. A box without area gives an empty crop.
    - "torchvision": mask and box are padded by one cell of zeros on every side, the corners of the box are
      truncated to whole pixels, and the mask is resized to the pixels from corner to corner, both included.
      The probability must be more than ``threshold``.
    """
    if not threshold > 0:
        raise ValueError(f"mask threshold ({threshold}) must be above 0: the mask is 0 outside the box")
    match rule:
        case "detectron2":
            return _paste_at_centres(np.asarray(mask, np.float32), box, image_size, threshold)
        case "torchvision":
            return _paste_in_whole_pixels(np.asarray(mask, np.float32), box, image_size, threshold)
    raise ValueError(f"mask paste is {rule!r}; it must be 'detectron2' or 'torchvision'")


def _paste_at_centres(
    mask: np.ndarray, box: np.ndarray, image_size: tuple[int, int], threshold: float
) -> PastedMask:
    cells_y, cells_x = mask.shape
    x1, y1, x2, y2 = (float(edge) for edge in box)
    height, width = image_size
    top, rows = _bilinear_weights(y1, y2, cells_y, height)
    left, columns = _bilinear_weights(x1, x2, cells_x, width)
    values = rows @ mask @ columns.T
    return PastedMask(top=top, left=left, mask=values >= threshold)


def _bilinear_weights(low: float, high: float, cells: int, size: int) -> tuple[int, np.ndarray]:
    """The crop's first pixel along an axis, and the weights of all cells at each pixel, [pixels cells]."""
    extent = high - low
    if not extent > 0:
        return 0, np.zeros((0, cells), np.float32)
    half_cell = extent / cells / 2
    first = min(max(int(np.floor(low - half_cell)), 0), size)
    last = max(min(int(np.ceil(high + half_cell)), size), first)
    centres = np.arange(first, last) + 0.5
    position = (centres - low) * (cells / extent) - 0.5  # 0 at the centre of the first cell
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0)
    return first, weights.astype(np.float32)


def _paste_in_whole_pixels(
    mask: np.ndarray, box: np.ndarray, image_size: tuple[int, int], threshold: float
) -> PastedMask:
    corners = np.asarray(box, np.float32).reshape(2, 2)  # [corner, x y]
    centre, half = (corners[1] + corners[0]) * 0.5, (corners[1] - corners[0]) * 0.5
    if not (half >= 0).all():
        return PastedMask(top=0, left=0, mask=np.zeros((0, 0), bool))
    half = half * np.float32((len(mask) + 2) / len(mask))
    (x1, y1), (x2, y2) = (corner.astype(np.int64).tolist() for corner in (centre - half, centre + half))
    height, width = image_size
    padded = np.pad(mask, 1)
    top, rows = _rows_inside(padded, y1, y2, height)
    left, columns = _rows_inside(rows.T, x1, x2, width)
    return PastedMask(top=top, left=left, mask=(columns > threshold).T)


def _rows_inside(values: np.ndarray, first: int, last: int, size: int) -> tuple[int, np.ndarray]:
    """The first row inside an image of ``size`` rows, and the rows inside it.

    The rows are ``values`` resized along the first axis to rows ``first`` to ``last`` of the image.
    """
    low, high, high_weight = interpolation_indices(len(values), last - first + 1)
    start, stop = min(max(first, 0), size), max(min(last + 1, size), 0)
    kept = slice(start - first, max(stop, start) - first)
    high_weight = high_weight[kept, None]
    low_rows, high_rows = values.take(low[kept], axis=0), values.take(high[kept], axis=0)
    low_rows *= 1 - high_weight
    high_rows *= high_weight
    low_rows += high_rows
    return start, low_rows
