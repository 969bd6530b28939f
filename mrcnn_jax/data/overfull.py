"""Fits an image with more objects than rows of ground truth into these rows; none becomes background.

Shapes: N objects, G rows.
"""

import numpy as np


def fit_rows(boxes: np.ndarray, crowd: np.ndarray, max_objects: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The objects that remain targets, and the groups of the others, each of which shares a row as a crowd.

    What is dropped would be background: training would punish the model for finding it. As there are too few
    rows, some stand for several objects, and nothing is learnt between these. To keep such regions small, the
    objects give up one row for each that is too many, but at least a tenth of all rows and at most a quarter;
    crowds have a row each, up to half. Groups are made by cutting: the group of largest extent is cut in two
    where the extents of both parts are smallest.

    Args:
        boxes: ``[N 4]``, more than ``max_objects``; the first ones that are not crowds remain targets.
        crowd: ``[N]``.
        max_objects: G.

    Returns:
        The indices of the T targets, and G - T arrays with the indices of all others.
    """
    objects, crowds = np.flatnonzero(~crowd), np.flatnonzero(crowd)
    regions = max(1, max_objects // 10, min(len(boxes) - max_objects, max_objects // 4))
    targets = objects[: max(max_objects - regions - min(len(crowds), max_objects // 2), 0)]
    others = np.concatenate([crowds, objects[len(targets) :]])
    groups = _group(boxes[others], max_objects - len(targets))
    return targets, [others[group] for group in groups]


def union(boxes: np.ndarray) -> np.ndarray:
    """The smallest box ``[4]`` around all ``boxes`` ``[N 4]``."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _group(boxes: np.ndarray, count: int) -> list[np.ndarray]:
    """The indices of boxes near each other, as ``count`` groups; there are more boxes than that."""
    groups = [np.arange(len(boxes))]
    while len(groups) < count:
        # A group of one cannot be cut.
        areas = [float(_areas(union(boxes[group]))) if len(group) > 1 else -1.0 for group in groups]
        groups += _cut(boxes, groups.pop(int(np.argmax(areas))))
    return groups


def _cut(boxes: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """Two groups, one left of or above the other, whose extents have the smallest area in total."""
    cuts = []
    for axis in (0, 1):
        order = group[np.argsort(boxes[group, axis] + boxes[group, axis + 2], kind="stable")]
        total = (
            _areas(_running_unions(boxes[order]))[:-1] + _areas(_running_unions(boxes[order[::-1]]))[-2::-1]
        )
        first = int(np.argmin(total))
        cuts.append((total[first], [order[: first + 1], order[first + 1 :]]))
    return min(cuts, key=lambda cut: cut[0])[1]


def _running_unions(boxes: np.ndarray) -> np.ndarray:
    """The unions ``[N 4]`` of the first 1, 2, ... N boxes."""
    low, high = np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
