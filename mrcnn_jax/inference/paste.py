"""Masks from the frame of their box to the pixels of the image (paper section 3.1, "Inference").

Shapes: M x M cells of a predicted mask, h x w pixels of a crop.

NumPy on the host: what an object costs in time and memory follows the size of its box, never that of the
image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mrcnn_jax.images import interpolation_indices


@dataclass(frozen=True, eq=False)
class PastedMask:
    """The part of an image's mask that may be true; every pixel outside the crop is false."""

    top: int  # the image row of the crop's first row
    left: int  # the image column of its first column
    mask: Bool[np.ndarray, "h w"]

    def write(self, bitmap: Bool[np.ndarray, "height width"]) -> None:
        """Sets the crop's pixels in a mask of the whole image."""
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
    """The pixels of the image whose probability reaches ``threshold``.

    ``mask`` [M M] holds probabilities in the frame of ``box`` (``x1 y1 x2 y2`` in pixels of the image of
    ``image_size`` = (height, width)). Raises ``ValueError`` for a threshold that is not above 0 and for
    another rule than these two:

    - "detectron2": a pixel's probability is the bilinear interpolation between the centres of the cells at
      the centre of the pixel, and the map is zero beyond its cells (``grid_sample(align_corners=False)``). So
      it fades to zero half a cell outside the box, and the crop is the box grown by half a cell and clipped
      to the image. It must be ``threshold`` or more. The crop of a box without area is empty.
    - "torchvision": map and box grow by a cell of zeros on every side, the corners of the box become whole
      pixels, towards 0, and the map is resized to the pixels from one corner to the other, both included.
      It must be more than ``threshold``.
    """
    if not threshold > 0:
        raise ValueError(f"mask threshold ({threshold}) must be above 0: the map is zero outside the box")
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
    """The first pixel of one axis inside the map, and each pixel's weights of the cells, [pixels cells]."""
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
    """``values`` resized along its first axis to pixels ``first`` to ``last``: those of 0 to ``size - 1``.

    Also says which is the first of them.
    """
    low, high, share = interpolation_indices(len(values), last - first + 1)
    start, stop = min(max(first, 0), size), max(min(last + 1, size), 0)
    kept = slice(start - first, max(stop, start) - first)
    share = share[kept, None]
    first_pixels, second_pixels = values.take(low[kept], axis=0), values.take(high[kept], axis=0)
    first_pixels *= 1 - share
    second_pixels *= share
    first_pixels += second_pixels
    return start, first_pixels
