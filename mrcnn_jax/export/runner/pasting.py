"""Pastes masks into images, with the bits of Detectron2 and torchvision, and encodes them as COCO's RLE."""

from typing import Any

import numpy as np

from .resizing import Size, neighbours

Crop = tuple[int, int, np.ndarray]  # top, left, and a mask bool [h w]; outside it the mask is false


def paste_at_centres(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """A mask in the image, by Detectron2's rule: interpolated between the centres of its cells."""
    starts, weights = [], []
    ends = box[1::-1].tolist(), box[:1:-1].tolist()  # y1 x1, y2 x2
    for low, high, cells, size in zip(*ends, mask.shape, image_size, strict=True):
        half_cell = (high - low) / cells / 2
        first = min(max(int(np.floor(low - half_cell)), 0), size)
        last = max(min(int(np.ceil(high + half_cell)), size), first)
        position = (np.arange(first, last) + 0.5 - low) * (cells / (high - low)) - 0.5
        starts.append(first)
        weights.append(np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0).astype(np.float32))
    return *starts, weights[0] @ mask @ weights[1].T >= threshold


def paste_in_whole_pixels(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """A mask in the image, by torchvision's rule: resized to whole pixels, with a cell of zeros around it."""
    centre, half = (box[2:] + box[:2]) * 0.5, (box[2:] - box[:2]) * 0.5
    half = half * np.float32((len(mask) + 2) / len(mask))
    firsts, lasts = ((centre + side * half).astype(int).tolist()[::-1] for side in (-1, 1))
    values, starts = np.pad(mask, 1), []
    for first, last, size in zip(firsts, lasts, image_size, strict=True):
        (low, high), share = neighbours(len(values), last - first + 1, "torchvision")
        start, stop = min(max(first, 0), size), max(min(last + 1, size), 0)
        kept = slice(start - first, max(stop, start) - first)
        low, high, share = low[kept], high[kept], share[kept, None]
        values = (values[low] * (1 - share) + values[high] * share).T
        starts.append(start)
    return *starts, values > threshold


def to_rle(crop: Crop, image_size: Size) -> dict[str, Any]:
    """COCO's compressed RLE of a mask."""
    (top, left, mask), (height, width) = crop, image_size
    columns = np.zeros((mask.shape[1], height), bool)
    columns[:, top : top + len(mask)] = mask.T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False)) + left * height
    runs = np.diff(edges, prepend=0, append=height * width).tolist()
    text = ""
    for place, run in enumerate(runs[:-1] if runs[-1] == 0 else runs):
        number, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:  # five bits at a time, lowest first; the sixth says that more follow
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return {"size": [height, width], "counts": text}
