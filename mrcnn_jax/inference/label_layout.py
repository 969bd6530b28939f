"""Where names go in a picture: at their boxes, inside the picture, apart from one another."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def place_labels(
    boxes: Float[np.ndarray, "n 4"], sizes: Sequence[tuple[int, int]], canvas_size: tuple[int, int]
) -> list[tuple[int, int]]:
    """The left and top pixel of each box's label of ``sizes`` (width, height); earlier labels choose first.

    ``boxes`` are ``x1 y1 x2 y2`` in pixels of a canvas of ``canvas_size`` (width, height). A label stays
    inside the canvas (one larger than it begins at its left or top edge), and of the places around its box
    takes the one that covers least of the labels before it: on top of the box, inside its top, inside its
    bottom, below it, aligned left before right.
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
    """Pixels of a label that lie on others."""
    widths = np.minimum(x2, taken[:, 2]) - np.maximum(x1, taken[:, 0])
    heights = np.minimum(y2, taken[:, 3]) - np.maximum(y1, taken[:, 1])
    return float((np.maximum(widths, 0) * np.maximum(heights, 0)).sum())
