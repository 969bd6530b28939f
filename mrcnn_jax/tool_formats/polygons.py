"""Makes polygons of masks, for tools that draw them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from mrcnn_jax.inference.outlines import signed_area, trace_outlines
from mrcnn_jax.inference.paste import PastedMask

_BLOCK = 1 << 16  # distances that are computed at a time


def outlines(mask: PastedMask, tolerance: float) -> list[Num[np.ndarray, "_ 2"]]:
    """The outlines of a mask's parts and holes, with fewer corners: x y in pixels, inside the image.

    See ``trace_outlines``. Corners are left out where the line between the others stays within ``tolerance``
    pixels of them; 0 keeps the mask exactly. At 0.75 a slanted edge, which is a staircase of pixels, becomes
    a line: at 45 degrees its corners are 0.71 from that. An outline that would have no area left keeps all
    of its corners.
    """
    return [_simplify(polygon, tolerance) for polygon in trace_outlines(mask)]


def joined(polygons: Sequence[Num[np.ndarray, "_ 2"]]) -> Num[np.ndarray, "_ 2"]:
    """One polygon of the outlines of an object's parts and holes, for formats that have one per object.

    Each outline is joined to those before it by a line, walked both ways, between their closest corners. So
    the polygon encloses the same area, by the even-odd rule as well as by the nonzero one.
    """
    corners = np.concatenate(polygons)
    x, y = corners.astype(np.float64).T
    owners = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
    ring = added = np.flatnonzero(owners == 0)
    outside = np.flatnonzero(owners != 0)
    distances = np.full(len(outside), np.inf)  # squared, of each corner outside to the closest of the ring
    closest = np.zeros(len(outside), np.int64)
    while len(outside):
        for block in np.array_split(added, -(-len(added) * len(outside) // _BLOCK)):
            found = (x[outside] - x[block, None]) ** 2 + (y[outside] - y[block, None]) ** 2
            least = found.min(axis=0)
            closer = np.flatnonzero(least < distances)
            distances[closer], closest[closer] = least[closer], block[found[:, closer].argmin(axis=0)]
        place = int(np.argmin(distances))
        there = outside[place]
        part = np.flatnonzero(owners == owners[there])
        added = np.roll(part, part[0] - there)
        here = int(np.flatnonzero(ring == closest[place])[0])
        ring = np.concatenate([ring[: here + 1], added, added[:1], ring[here:]])
        left = owners[outside] != owners[there]
        outside, distances, closest = outside[left], distances[left], closest[left]
    return corners[ring]


def has_holes(polygons: Sequence[np.ndarray]) -> bool:
    """Whether one of a mask's outlines is that of a hole."""
    return any(signed_area(polygon) < 0 for polygon in polygons)


def _simplify(polygon: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygon by the algorithm of Douglas and Peucker, begun at two corners that are far apart."""
    if tolerance <= 0:
        return polygon
    start = int(np.argmax(((polygon - polygon[0]) ** 2).sum(axis=1)))
    points = np.roll(polygon, -start, axis=0).astype(np.float64)
    closed = np.concatenate([points, points[:1]])
    middle = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    keep = np.zeros(len(closed), bool)
    keep[[0, middle]] = True
    stretches = [(0, middle), (middle, len(points))]
    while stretches:
        first, last = stretches.pop()
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        if len(distances) and distances.max() > tolerance:
            corner = first + 1 + int(np.argmax(distances))
            keep[corner] = True
            stretches += [(first, corner), (corner, last)]
    kept = np.roll(polygon, -start, axis=0)[keep[:-1]]
    if len(kept) < 3 or signed_area(kept) * signed_area(polygon) <= 0:
        return polygon
    return kept


def _distances(
    points: Float[np.ndarray, "p 2"], start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"]
) -> Float[np.ndarray, " p"]:
    """The distance of each point to the line from ``start`` to ``end``, which ends there."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)
