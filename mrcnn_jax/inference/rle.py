"""COCO's compressed run-length encoding, in NumPy.

A mask is read column by column. The lengths of its runs, the first one of zeros and perhaps 0 long, become
text: from the fourth on as the difference to the run two before, each number in groups of five bits, the
lowest first, a sixth bit saying that more follow, as the characters from ``0`` (48) on. The strings equal
those of ``pycocotools``.
"""

from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Int

from mrcnn_jax.inference.paste import PastedMask

_GROUP = 5  # bits of a number per character
_MORE = 1 << _GROUP
_SIGN = 1 << (_GROUP - 1)
_FIRST_CHARACTER = 48


class RLE(TypedDict):
    """A compressed mask, as COCO's result files hold it."""

    size: list[int]  # height, width of the image
    counts: str


def encode_rle(pasted: PastedMask, image_size: tuple[int, int]) -> RLE:
    """The run-length encoding of the whole image's mask, straight from the crop.

    ``image_size`` is (height, width). Raises ``ValueError`` if the crop does not lie inside the image.
    """
    height, width = image_size
    rows, columns = pasted.mask.shape
    bottom, right = pasted.top + rows, pasted.left + columns
    if min(pasted.top, pasted.left) < 0 or bottom > height or right > width:
        raise ValueError(
            f"a crop of rows {pasted.top} to {bottom} and columns {pasted.left} to {right} "
            f"does not lie inside an image of {height} x {width} pixels"
        )
    return {"size": [height, width], "counts": _to_text(_run_lengths(pasted, height, width))}


def decode_rle(rle: RLE) -> Bool[np.ndarray, "height width"]:
    """The mask of the whole image; raises ``ValueError`` if the runs do not fill it exactly."""
    height, width = rle["size"]
    runs = _from_text(rle["counts"])
    if runs.sum() != height * width or (runs < 0).any():
        raise ValueError(
            f"RLE of {height} x {width} pixels: its runs sum to {runs.sum()}, the shortest is {runs.min()}; "
            f"they must not be negative and sum to {height * width}"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _run_lengths(pasted: PastedMask, height: int, width: int) -> Int[np.ndarray, " runs"]:
    """Lengths of alternating runs of zeros and ones over the whole image, column by column."""
    rows, columns = pasted.mask.shape
    if rows == 0 or columns == 0:
        return np.array([height * width])
    crop = np.ascontiguousarray(pasted.mask.T)
    # Where the value changes going down a column of the crop, its outside being zero: an even number of
    # places.
    change = np.empty((columns, rows + 1), bool)
    change[:, 0] = crop[:, 0]
    np.not_equal(crop[:, 1:], crop[:, :-1], out=change[:, 1:-1])
    change[:, -1] = crop[:, -1]
    column, row = np.divmod(np.flatnonzero(change), rows + 1)
    edges = (pasted.left + column) * height + pasted.top + row
    if rows == height:  # a run that ends at the bottom may go on at the top of the next column
        ends, starts = edges[1:-1:2], edges[2::2]
        parted = ends != starts
        edges = np.concatenate([edges[:1], np.stack([ends[parted], starts[parted]], 1).ravel(), edges[-1:]])
    runs = np.diff(edges, prepend=0, append=height * width)
    return runs[:-1] if runs[-1] == 0 else runs


def _to_text(runs: Int[np.ndarray, " runs"]) -> str:
    numbers = runs.astype(np.int64)
    numbers[3:] -= runs[1:-2]
    # A number of b bits and a sign needs ceil((b + 1) / 5) groups; the rest of its row of groups is dropped.
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    bits = np.frexp(magnitude.astype(np.float64))[1]
    lengths = bits // _GROUP + 1
    place = np.arange(lengths.max())
    groups = (numbers[:, None] >> (_GROUP * place)) & (_MORE - 1)
    groups |= np.where(place < lengths[:, None] - 1, _MORE, 0)
    characters = (groups + _FIRST_CHARACTER).astype(np.uint8)
    return characters[place < lengths[:, None]].tobytes().decode("ascii")


def _from_text(text: str) -> Int[np.ndarray, " runs"]:
    groups = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    last = (groups & _MORE) == 0
    if not len(groups) or groups.min() < 0 or groups.max() >= 2 * _MORE or not last[-1]:
        raise ValueError(f"not the text of a run-length encoding: {text[:40]!r}")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 11:  # 12 groups of 5 bits hold any run that an int64 does
        raise ValueError(f"a run of the encoding is too long: {text[:40]!r}")
    numbers = np.add.reduceat((groups & (_MORE - 1)) << (_GROUP * place), starts)
    negative = (groups[ends] & _SIGN) != 0
    numbers -= np.where(negative, 1 << (_GROUP * (place[ends] + 1)), 0)
    # Undo the differences: from the fourth run on, each is the sum of every second number before it.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
