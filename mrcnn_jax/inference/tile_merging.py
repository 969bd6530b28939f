"""One result of a large image from those of overlapping tiles.

An object that a tile cuts off is found in pieces, and one in the overlap of two tiles is found twice. Two
finds of a category in different tiles are of one object if they agree where both tiles see: see ``_agree``.
Then

- an object that some tile has whole is taken from there, unchanged, and its pieces are dropped;
- pieces of an object that no tile has whole, being larger than the overlap, are joined;
- a piece that another tile sees whole, but did not find, is dropped.

Shapes: N objects, M and K objects of two tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mrcnn_jax.images import Size
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result

_EDGE = 1 / 64  # of a tile's side: an object that is closer to the side is cut off by it
_SAME = 0.5  # the least IoU of two finds of an object, and share of a piece that is in another find


class Tile(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def box(self) -> tuple[float, ...]:
        """x1 y1 x2 y2."""
        return tuple(map(float, (self.left, self.top, self.left + self.width, self.top + self.height)))


def tiles_of(image_size: Size, *, tile: int, overlap: int) -> list[Tile]:
    """The tiles of an image, row by row: squares of ``tile`` pixels, or less where the image is smaller.

    Neighbours overlap by at least ``overlap`` pixels; the last ones of a row and of a column end where the
    image does. Raises ValueError unless the overlap is from 0 to half the tile.
    """
    if not 0 <= 2 * overlap <= tile:
        raise ValueError(f"the overlap is {overlap}; it must be from 0 to half the tile ({tile})")

    def starts(length: int) -> list[int]:
        last = max(length - tile, 0)
        return [*range(0, last, tile - overlap), last]

    height, width = (min(tile, length) for length in image_size)
    return [Tile(top, left, height, width) for top in starts(image_size[0]) for left in starts(image_size[1])]


def merge_tiles(
    found: Sequence[tuple[Tile, Result]], image_size: Size, *, path: Path | None = None
) -> Result:
    """The objects of ``found``, all tiles of an image and their results, as one result, best first.

    Boxes, masks and keypoints of ``found`` are in pixels of their tiles. A joined object has the union of its
    pieces' boxes and masks, and score and keypoints of the best of them. Masks decide what agrees, or boxes
    if there are none. ``path`` is the image's file.
    """
    whole = replace(found[0][1][:0], image_size=image_size, path=path)
    tiles = [_Finds(tile, _moved(result, tile, whole), image_size) for tile, result in found]
    pairs = [
        (a, b) for i, a in enumerate(tiles) for b in tiles[:i] if _area(_common(a.tile.box, b.tile.box)) > 0
    ]
    _drop_duplicates(tiles, pairs)
    for finds, other in (ordered for a, b in pairs for ordered in ((a, b), (b, a))):
        _drop_pieces(finds, other)
    results = [finds.result[finds.kept & ~finds.cut] for finds in tiles]
    results += _joined(tiles, pairs)
    return _concatenated(results, whole)


@dataclass
class _Finds:
    """What a tile has found, in pixels of the image."""

    tile: Tile
    result: Result
    image_size: Size

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.tile.box
        height, width = self.image_size
        x, y = self.tile.width * _EDGE, self.tile.height * _EDGE
        # Only sides within the image cut objects off.
        self.inside = np.array(
            [
                x1 + x if x1 > 0 else -np.inf,
                y1 + y if y1 > 0 else -np.inf,
                x2 - x if x2 < width else np.inf,
                y2 - y if y2 < height else np.inf,
            ]
        )
        self.cut = ~self.sees_whole(self.result.boxes)
        self.kept = np.ones(len(self.result), bool)

    def sees_whole(self, boxes: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Whether all of an object with this box lies in the tile, away from sides that would cut it off."""
        least, most = self.inside[:2], self.inside[2:]
        return np.all((boxes[:, :2] >= least) & (boxes[:, 2:] <= most), axis=1)


def _drop_duplicates(tiles: Sequence[_Finds], pairs: Sequence[tuple[_Finds, _Finds]]) -> None:
    """Of each object that several tiles have whole, keeps the find of the best score."""
    same: dict[tuple[int, int], list[tuple[int, int]]] = {}
    number = {id(finds): i for i, finds in enumerate(tiles)}
    for a, b in pairs:
        for i, j in _agreeing(a, b, ~a.cut, ~b.cut):
            of_a, of_b = (number[id(a)], i), (number[id(b)], j)
            same.setdefault(of_a, []).append(of_b)
            same.setdefault(of_b, []).append(of_a)
    for tile, i in sorted(same, key=lambda find: (-tiles[find[0]].result.scores[find[1]], find)):
        if tiles[tile].kept[i]:
            for other, j in same[tile, i]:
                tiles[other].kept[j] = False


def _drop_pieces(finds: _Finds, other: _Finds) -> None:
    """Drops the pieces in ``finds`` of which ``other`` sees all, and those of objects that it has whole."""
    finds.kept &= ~(finds.cut & other.sees_whole(finds.result.boxes))
    for i, _ in _agreeing(finds, other, finds.cut & finds.kept, ~other.cut):
        finds.kept[i] = False


def _joined(tiles: Sequence[_Finds], pairs: Sequence[tuple[_Finds, _Finds]]) -> Iterator[Result]:
    """The objects that no tile has whole, each as a result."""
    pieces = [(id(finds), i) for finds in tiles for i in np.flatnonzero(finds.kept & finds.cut).tolist()]
    group = {piece: [piece] for piece in pieces}
    for a, b in pairs:
        for i, j in _agreeing(a, b, a.cut & a.kept, b.cut & b.kept):
            one, other = group[id(a), i], group[id(b), j]
            if one is not other:
                one += other
                group.update(dict.fromkeys(other, one))
    by_id = {id(finds): finds for finds in tiles}
    for members in {id(members): members for members in group.values()}.values():
        results = [by_id[tile].result[i] for tile, i in members]
        best = max(results, key=lambda result: result.scores[0])
        boxes = np.concatenate([result.boxes for result in results])
        box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
        crops = None
        if best.crops is not None:
            crops = (_union([result.crops[0] for result in results if result.crops is not None]),)
        yield replace(best, boxes=box, crops=crops)


def _agreeing(
    a: _Finds, b: _Finds, of_a: Bool[np.ndarray, " m"], of_b: Bool[np.ndarray, " k"]
) -> Iterator[tuple[int, int]]:
    """The pairs of an object of ``of_a`` and one of ``of_b`` that are of one object."""
    window = _common(a.tile.box, b.tile.box)
    for i in np.flatnonzero(of_a).tolist():
        boxes = b.result.boxes
        x1, y1, x2, y2 = a.result.boxes[i]
        meets = (boxes[:, 0] < x2) & (boxes[:, 1] < y2) & (boxes[:, 2] > x1) & (boxes[:, 3] > y1)
        meets &= of_b & (b.result.labels == a.result.labels[i])
        for j in np.flatnonzero(meets).tolist():
            if _agree(a.result, i, b.result, j, window, pieces=bool(a.cut[i] or b.cut[j])):
                yield i, j


def _agree(a: Result, i: int, b: Result, j: int, window: Sequence[float], *, pieces: bool) -> bool:
    """Whether two finds are of one object, by what they have in ``window``, which both tiles see.

    Whole objects have an IoU of at least a half there. Of ``pieces``, of which one may be a sliver, half of
    the smaller one lies in the other.
    """
    if a.crops is None or b.crops is None:
        ours, theirs = _common(a.boxes[i].tolist(), window), _common(b.boxes[j].tolist(), window)
        areas, both = (_area(ours), _area(theirs)), _area(_common(ours, theirs))
    else:
        x1, y1, x2, y2 = (int(value) for value in window)
        bitmaps = [_cut_out(crop, y1, x1, y2, x2) for crop in (a.crops[i], b.crops[j])]
        areas = float(np.count_nonzero(bitmaps[0])), float(np.count_nonzero(bitmaps[1]))
        both = float(np.count_nonzero(bitmaps[0] & bitmaps[1]))
    return bool(both > 0 and both >= _SAME * (min(areas) if pieces else sum(areas) - both))


def _common(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float, float]:
    """The intersection of two boxes; its sides may be negative."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _area(box: Sequence[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _cut_out(crop: PastedMask, top: int, left: int, bottom: int, right: int) -> Bool[np.ndarray, "h w"]:
    """The mask in these rows and columns of the image."""
    bitmap = np.zeros((bottom - top, right - left), bool)
    rows, columns = crop.mask.shape
    first_row, first_column = max(crop.top, top), max(crop.left, left)
    last_row, last_column = min(crop.top + rows, bottom), min(crop.left + columns, right)
    if first_row < last_row and first_column < last_column:
        bitmap[first_row - top : last_row - top, first_column - left : last_column - left] = crop.mask[
            first_row - crop.top : last_row - crop.top, first_column - crop.left : last_column - crop.left
        ]
    return bitmap


def _union(crops: Sequence[PastedMask]) -> PastedMask:
    top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
    bottom = max(crop.top + crop.mask.shape[0] for crop in crops)
    right = max(crop.left + crop.mask.shape[1] for crop in crops)
    return PastedMask(top, left, np.any([_cut_out(crop, top, left, bottom, right) for crop in crops], axis=0))


def _moved(result: Result, tile: Tile, whole: Result) -> Result:
    """A tile's result as one of the whole image."""
    corner = np.array([tile.left, tile.top], np.float32)
    crops = keypoints = None
    if result.crops is not None:
        crops = tuple(PastedMask(c.top + tile.top, c.left + tile.left, c.mask) for c in result.crops)
    if result.keypoints is not None:
        has_keypoints = np.isin(result.labels, result.categories.keypoint_labels)
        keypoints = result.keypoints.copy()
        keypoints[has_keypoints, :, :2] += corner
    boxes = result.boxes + np.tile(corner, 2)
    return replace(
        whole, boxes=boxes, scores=result.scores, labels=result.labels, crops=crops, keypoints=keypoints
    )


def _concatenated(results: Sequence[Result], whole: Result) -> Result:
    scores = np.concatenate([whole.scores, *(result.scores for result in results)])
    order = np.argsort(-scores, kind="stable")
    crops = keypoints = None
    if whole.crops is not None:
        every = [crop for result in results for crop in result.crops or ()]
        crops = tuple(every[i] for i in order)
    if whole.keypoints is not None:
        keypoints = np.concatenate([whole.keypoints, *(result.keypoints for result in results)])[order]
    return replace(
        whole,
        boxes=np.concatenate([whole.boxes, *(result.boxes for result in results)])[order],
        scores=scores[order],
        labels=np.concatenate([whole.labels, *(result.labels for result in results)])[order],
        crops=crops,
        keypoints=keypoints,
    )
