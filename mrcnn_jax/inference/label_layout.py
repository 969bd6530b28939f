"""Places labels at their boxes, inside the picture, with as little overlap as possible."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def place_labels(
    boxes: Float[np.ndarray, "n 4"], sizes: Sequence[tuple[int, int]], canvas_size: tuple[int, int]
) -> list[tuple[int, int]]:
    """The top left corner (x, y) of each box's label; earlier labels choose first.

    ``boxes`` are ``x1 y1 x2 y2`` in pixels of a canvas of ``canvas_size`` (width, height); the labels have
    ``sizes`` (width, height). A label stays inside the canvas; one too large for it starts at the left or top
    edge. Of the positions around its box, a label takes the one that covers least of the earlier labels, in
    this order of preference: above the box, inside its top, inside its bottom, below it; left before right.
    """
    taken = np.zeros((0, 4))
    corners = []
    for (x1, y1, x2, y2), (width, height) in zip(boxes.tolist(), sizes, strict=True):
        places = [(x, y) for y in (y1 - height, y1, y2 - height, y2) for x in (x1, x2 - width)]
        inside = [_clip(place, (width, height), canvas_size) for place in places]
        covered = [_covered(x, y, x + width, y + height, taken) for x, y in inside]
        x, y = inside[int(np.argmin(covered))]
        corners.append((x, y))
        taken = np.concatenate([taken, [[x, y, x + width, y + height]]])
    return corners


def _clip(place: tuple[float, float], size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    x, y = (
        max(min(round(start), canvas - length), 0)
        for start, length, canvas in zip(place, size, canvas_size, strict=True)
    )
    return x, y


def _covered(x1: int, y1: int, x2: int, y2: int, taken: np.ndarray) -> float:
    """The area, in pixels, of a label's overlaps with the labels placed before it."""
    widths = np.minimum(x2, taken[:, 2]) - np.maximum(x1, taken[:, 0])
    heights = np.minimum(y2, taken[:, 3]) - np.maximum(y1, taken[:, 1])
    return float((np.maximum(widths, 0) * np.maximum(heights, 0)).sum())
