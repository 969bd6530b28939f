"""Cuts polygons to a rectangle, exactly."""

import numpy as np


def clip_polygons(polygons: tuple[np.ndarray, ...], size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """The parts of ``polygons`` (each ``[P 2]``, x and y) from 0 to ``size`` (height, width).

    A polygon may fall into several parts; parts without area are left out. What is inside is decided by the
    even-odd rule, before as after. A polygon that lies inside is returned as it is.
    """
    height, width = size
    parts = []
    for polygon in polygons:
        pieces = [polygon]
        for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
            pieces = [part for piece in pieces for part in _cut(piece, axis, float(limit), sign)]
        parts += [piece for piece in pieces if np.ptp(piece, axis=0).all()]
    return tuple(parts)


def _cut(polygon: np.ndarray, axis: int, limit: float, sign: int) -> list[np.ndarray]:
    """The parts of a polygon with ``axis`` at least at ``limit`` or, with ``sign`` -1, at most.

    Along the line at the limit, inside and outside alternate wherever the polygon crosses it. So each part is
    a walk: along the polygon from one crossing to the next, along the line to the crossing that this one is
    paired with, and so on, until the walk is back at its start.
    """
    distance = sign * (polygon[:, axis] - limit)
    inside = distance >= 0
    if inside.all():
        return [polygon]
    if not inside.any():
        return []
    following = np.roll(np.arange(len(polygon)), -1)
    edges = np.flatnonzero(inside != inside[following])  # that cross the line, by the index of their start
    share = distance[edges] / (distance[edges] - distance[following[edges]])
    crossings = polygon[edges] + share[:, None] * (polygon[following[edges]] - polygon[edges])
    crossings[:, axis] = limit
    along = np.argsort(crossings[:, 1 - axis], kind="stable")
    partner = np.empty(len(edges), np.int64)
    partner[along[0::2]], partner[along[1::2]] = along[1::2], along[0::2]

    left, parts = set(range(len(edges))), []
    while left:
        first = start = min(left)
        walk: list[np.ndarray] = []
        while True:
            if inside[edges[start]]:  # the polygon goes out here: walk it backwards
                end = (start - 1) % len(edges)
                stretch = _between(polygon, edges[end], edges[start])[::-1]
            else:
                end = (start + 1) % len(edges)
                stretch = _between(polygon, edges[start], edges[end])
            walk += [crossings[start : start + 1], stretch, crossings[end : end + 1]]
            left -= {start, end}
            start = int(partner[end])
            if start == first:
                break
        parts.append(np.concatenate(walk))
    return parts


def _between(polygon: np.ndarray, edge: int, other: int) -> np.ndarray:
    """The points from the end of an edge to the start of another, past the last point if need be."""
    if edge < other:
        return polygon[edge + 1 : other + 1]
    return np.concatenate([polygon[edge + 1 :], polygon[: other + 1]])
