"""COCO's run-length encoding of masks, in NumPy, equal to that of ``pycocotools``.

A mask is read column by column (column-major) as the lengths of its runs of 0, 1, 0, ...; the first run may
be empty. JSON holds the lengths as a list ("uncompressed") or as text ("compressed"). In the text, each run
from the fourth on is stored as the difference to the run two before it. Each number is split into groups of
five bits, lowest first; a sixth bit says that more groups follow, and each group becomes the character with
code 48 (``0``) plus its value.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

_GROUP = 5  # bits of a number per character
_MORE = 1 << _GROUP  # flag: more groups follow
_SIGN = 1 << (_GROUP - 1)
_FIRST_CHARACTER = 48
_MAX_GROUPS = 12  # per number; more would overflow an int64
_LARGEST_BITMAP = 178_956_970  # pixels; Pillow's limit against decompression bombs
_LARGEST_SIDE = 2**31 - 1  # pixels; the pixel count of a mask then fits an int64


class CompressedRle(TypedDict):
    """A mask as COCO's result files hold it."""

    size: list[int]  # height, width
    counts: str


class UncompressedRle(TypedDict):
    """A mask as COCO's annotation files hold it for crowds."""

    size: list[int]  # height, width
    counts: list[int]


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask as its run lengths."""

    height: int
    width: int
    counts: np.ndarray  # [runs] int64, non-negative, with the sum height * width

    @classmethod
    def from_json(cls, segmentation: dict) -> "Rle":
        """The RLE of untrusted JSON ``{"size": [height, width], "counts": [...] or "..."}``.

        Raises ValueError, naming the rule, unless the counts are the runs of a mask of that size.
        """
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not (isinstance(size, list) and len(size) == 2 and all(_is_side(side) for side in size)):
            raise ValueError(
                f"an RLE needs a size [height, width], got {size!r}; both must be integers from 1 to "
                f"{_LARGEST_SIDE}"
            )
        if isinstance(counts, str):
            runs = _from_text(counts).tolist()
        elif isinstance(counts, list) and all(type(count) is int for count in counts):
            runs = counts
        else:
            raise ValueError("an RLE needs counts: a list of integers or a string")
        height, width = size
        # Summed as Python integers, which cannot overflow.
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError(f"RLE counts must be >= 0 and sum to height * width ({height} * {width})")
        return cls(height, width, np.array(runs, np.int64))

    @classmethod
    def from_bitmap(cls, bitmap: np.ndarray) -> "Rle":
        """The RLE of a mask ``[H W]``."""
        return cls.from_crop(bitmap, top=0, left=0, image_size=bitmap.shape)

    @classmethod
    def from_crop(cls, crop: np.ndarray, *, top: int, left: int, image_size: tuple[int, ...]) -> "Rle":
        """The RLE of a whole image whose mask is zero outside ``crop`` ``[h w]``.

        ``top`` and ``left`` are the row and column of the crop's first pixel, ``image_size`` is (height,
        width). The cost depends on the size of the crop only. Raises ValueError if the crop is not inside the
        image.
        """
        height, width = image_size
        rows, columns = crop.shape
        bottom, right = top + rows, left + columns
        if min(top, left) < 0 or bottom > height or right > width:
            raise ValueError(
                f"a crop of rows {top} to {bottom} and columns {left} to {right} "
                f"does not lie inside an image of {height} x {width} pixels"
            )
        if rows == 0 or columns == 0:
            return cls(height, width, np.array([height * width], np.int64))
        columns_first = np.ascontiguousarray(crop.T, bool)
        # Where the value changes down each column of the crop: an even number of times, as it is 0 outside.
        change = np.empty((columns, rows + 1), bool)
        change[:, 0] = columns_first[:, 0]
        np.not_equal(columns_first[:, 1:], columns_first[:, :-1], out=change[:, 1:-1])
        change[:, -1] = columns_first[:, -1]
        column, row = np.divmod(np.flatnonzero(change), rows + 1)
        edges = (left + column) * height + top + row
        if rows == height:  # a run that ends at the bottom may continue at the top of the next column
            ends, starts = edges[1:-1:2], edges[2::2]
            separate = ends != starts
            edges = np.concatenate(
                [edges[:1], np.stack([ends[separate], starts[separate]], 1).ravel(), edges[-1:]]
            )
        runs = np.diff(edges, prepend=0, append=height * width)
        return cls(height, width, runs[:-1] if runs[-1] == 0 else runs)

    def decode(self) -> np.ndarray:
        """The mask, bool ``[height width]``. Raises ValueError if no image that can be read is so large."""
        if self.height * self.width > _LARGEST_BITMAP:
            raise ValueError(
                f"a mask of {self.height} x {self.width} pixels is too large to be decoded; at most "
                f"{_LARGEST_BITMAP} pixels are, as of images"
            )
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.width, self.height).T

    def to_crop(self) -> tuple[np.ndarray, int, int]:
        """The smallest crop with all pixels of the mask, bool ``[h w]``, its top row and its left column.

        Undoes ``from_crop``; an empty mask gives an empty crop at 0, 0. Only the mask's columns are decoded.
        Raises ValueError as ``decode``.
        """
        edges = np.cumsum(self.counts)
        filled = np.flatnonzero(self.counts[1::2])
        if not len(filled):
            return np.zeros((0, 0), bool), 0, 0
        first, last = 2 * filled[0], 2 * filled[-1] + 1  # the runs before the mask, and its last one
        left, right = int(edges[first]) // self.height, -int(-edges[last] // self.height)
        runs = np.append(self.counts[first : last + 1], right * self.height - edges[last])
        runs[0] = edges[first] - left * self.height
        columns = Rle(self.height, right - left, runs).decode()
        rows = np.flatnonzero(columns.any(axis=1))
        return columns[rows[0] : rows[-1] + 1], int(rows[0]), left

    def compressed(self) -> CompressedRle:
        """The mask as JSON, with compressed counts."""
        return {"size": [self.height, self.width], "counts": _to_text(self.counts)}

    def uncompressed(self) -> UncompressedRle:
        """The mask as JSON, with uncompressed counts."""
        return {"size": [self.height, self.width], "counts": self.counts.tolist()}


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIDE


def _to_text(runs: np.ndarray) -> str:
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    # A number of b bits and a sign needs ceil((b + 1) / 5) groups; the other groups in its row are dropped.
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    bits = np.frexp(magnitude.astype(np.float64))[1]
    lengths = bits // _GROUP + 1
    place = np.arange(lengths.max())
    groups = (numbers[:, None] >> (_GROUP * place)) & (_MORE - 1)
    groups |= np.where(place < lengths[:, None] - 1, _MORE, 0)
    characters = (groups + _FIRST_CHARACTER).astype(np.uint8)
    return characters[place < lengths[:, None]].tobytes().decode("ascii")


def _from_text(text: str) -> np.ndarray:
    """The run lengths that a text encodes, unchecked; raises ValueError if the text is malformed."""
    # Non-ASCII characters become bytes outside the alphabet.
    groups = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64)
    groups -= _FIRST_CHARACTER
    last = (groups & _MORE) == 0
    if not len(groups) or np.any((groups < 0) | (groups >= 2 * _MORE)) or not last[-1]:
        raise ValueError(f"RLE counts are not a complete string of COCO's alphabet: {_start(text)}")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise ValueError(f"RLE counts hold a number that is too large: {_start(text)}")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & (_MORE - 1)) << (_GROUP * place), starts)
    numbers -= np.where(groups[ends] & _SIGN, np.int64(1) << (_GROUP * lengths), 0)
    # Undo the differences by cumulative sums over every second number; the first run is not part of any.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _start(text: str) -> str:
    return repr(text[:40] + ("..." if len(text) > 40 else ""))
