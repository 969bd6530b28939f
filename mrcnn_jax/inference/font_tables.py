"""Reads which characters a TrueType or OpenType font has: the table "cmap" of the OpenType specification."""

import struct

import numpy as np

_COLLECTION = b"ttcf"
# Fonts of pictures in colour, which Pillow draws at one size, or not at all.
_COLOUR_TABLES = {b"CBDT", b"sbix", b"COLR", b"SVG "}
_UNICODE = {(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 6), (3, 1), (3, 10)}  # platform, encoding
_LARGEST = 0x10FFFF  # code point


def read_characters(font: bytes) -> np.ndarray:
    """The code points that the first font of a file has a glyph for, uint32, ascending.

    Empty for fonts of coloured pictures, and for files that are damaged or no fonts.
    """
    try:
        start = struct.unpack_from(">I", font, 12)[0] if font[:4] == _COLLECTION else 0
        (count,) = struct.unpack_from(">H", font, start + 4)
        records = [struct.unpack_from(">4sIII", font, start + 12 + 16 * i) for i in range(count)]
        tables = {tag: font[offset : offset + length] for tag, _, offset, length in records}
        if tables.keys() & _COLOUR_TABLES:
            return np.zeros(0, np.uint32)
        cmap = tables[b"cmap"]
        (count,) = struct.unpack_from(">H", cmap, 2)
        entries = [struct.unpack_from(">HHI", cmap, 4 + 8 * i) for i in range(count)]
        offsets = {offset for platform, encoding, offset in entries if (platform, encoding) in _UNICODE}
        subtables = [(struct.unpack_from(">H", cmap, offset)[0], cmap[offset:]) for offset in offsets]
        # Of a font with both, format 12 has all characters, and format 4 those up to 0xFFFF.
        for kind, read in ((12, _read_groups), (4, _read_segments)):
            if parts := [read(table) for found, table in subtables if found == kind]:
                return np.unique(np.concatenate(parts)).astype(np.uint32)
    except (struct.error, KeyError, ValueError, IndexError):
        pass
    return np.zeros(0, np.uint32)


def _read_segments(table: bytes) -> np.ndarray:
    """Format 4: segments of code points up to 0xFFFF, with glyphs by a difference or from an array."""
    (twice,) = struct.unpack_from(">H", table, 6)
    count = twice // 2
    ends = np.frombuffer(table, ">u2", count, 14).astype(np.int64)
    starts, deltas, offsets = (
        np.frombuffer(table, ">u2", count, 16 + twice * i).astype(np.int64) for i in (1, 2, 3)
    )
    first_offset = 16 + 3 * twice
    words = np.frombuffer(table, ">u2", (len(table) - first_offset) // 2, first_offset).astype(np.int64)
    found = [np.zeros(0, np.int64)]
    for i in range(count):
        codes = np.arange(starts[i], ends[i] + 1)
        if offsets[i]:  # counted from its own place
            place = i + offsets[i] // 2 + codes - starts[i]
            codes, place = codes[place < len(words)], place[place < len(words)]
            glyphs = np.where(words[place], (words[place] + deltas[i]) & 0xFFFF, 0)
        else:
            glyphs = (codes + deltas[i]) & 0xFFFF
        found.append(codes[glyphs != 0])
    return np.concatenate(found)


def _read_groups(table: bytes) -> np.ndarray:
    """Format 12: groups of consecutive code points with consecutive glyphs."""
    (count,) = struct.unpack_from(">I", table, 12)
    groups = np.frombuffer(table, ">u4", 3 * count, 16).reshape(count, 3).astype(np.int64)
    present = np.zeros(_LARGEST + 2, np.int8)
    for start, end, glyph in groups[(groups[:, 0] <= groups[:, 1]) & (groups[:, 1] <= _LARGEST)].tolist():
        present[start + (glyph == 0) : end + 1] = 1
    return np.flatnonzero(present)
