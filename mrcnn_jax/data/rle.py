"""COCO's run-length encoding of bitmaps, decoded without trusting the file that it came from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rle:
    """A bitmap as the lengths of its runs of 0, 1, 0, ..., down the columns, the first column first."""

    height: int
    width: int
    counts: np.ndarray  # int64, sums to height * width

    @classmethod
    def from_json(cls, segmentation: dict) -> "Rle":
        """The runs of ``{"size": [height, width], "counts": [...] or "..."}``; ValueError if broken."""
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
            raise ValueError(f"an RLE needs a size [height, width], got {size!r}")
        if isinstance(counts, str):
            runs = _parse_counts(counts)
        elif isinstance(counts, list) and all(type(count) is int for count in counts):
            runs = np.array(counts, np.int64)
        else:
            raise ValueError("an RLE needs counts: a list of integers or a string")
        if (runs < 0).any() or runs.sum() != size[0] * size[1]:
            raise ValueError(f"RLE counts must be >= 0 and sum to height * width ({size[0]} * {size[1]})")
        return cls(size[0], size[1], runs)

    def decode(self) -> np.ndarray:
        """The bitmap, bool ``[height width]``."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.width, self.height).T


def _parse_counts(text: str) -> np.ndarray:
    """The runs of a compressed string: 5 bits a character, low bits first, bit 5 set where more follow.

    The last character's bit 4 is the sign; from the fourth run on, the difference to the run before the last
    is stored.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError("RLE counts are not a complete string of COCO's alphabet")
    last = (codes & 0x20) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:  # 60 bits; more would overflow
        raise ValueError("RLE counts hold a number that is too large")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 0x1F) << shifts, starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def encode_rle(bitmap: np.ndarray) -> dict:
    """COCO's uncompressed RLE, ``{"size", "counts"}`` of plain integers, of a bitmap ``[H W]``."""
    height, width = bitmap.shape
    flat = np.concatenate([[False], bitmap.astype(bool).T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [height * width]]))
    return {"size": [height, width], "counts": counts.tolist()}
