"""Writes proposals image by image: to files of records, which lose nothing if the process is killed, and from
these to one .npz.

A record is an image's id and number of proposals (int64), then boxes [P 4] and objectness [P] (float32).
Only one image's proposals are in memory at a time.

Shapes: N images, M proposals of all images, P proposals of one image.
"""

import os
import struct
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from mrcnn_jax.file_locks import open_alone

_HEADER = struct.Struct("<qq")
_BOX, _LOGIT = 16, 4  # bytes


class Record(NamedTuple):
    """Where the proposals of an image are."""

    image_id: int
    path: Path
    start: int  # of the boxes, in bytes
    number: int  # of proposals, P

    @property
    def end(self) -> int:
        """Where the record ends, in bytes."""
        return self.start + self.number * (_BOX + _LOGIT)


class RecordWriter:
    """Appends records to the file at ``path``, which is created if there is none.

    An incomplete last record is dropped. Until it is closed, no other process can write the file: raises
    BlockingIOError if another one does (``file_locks``).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_alone(path)
        found = find_records(path)
        self._file.truncate(found[-1].end if found else 0)
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, image_id: int, boxes: np.ndarray, objectness: np.ndarray) -> Record:
        """Writes the proposals of an image, the best first: killing the process after this keeps them."""
        order = np.argsort(-objectness, kind="stable")
        start = self._file.tell() + _HEADER.size
        parts = (boxes[order].astype("<f4").tobytes(), objectness[order].astype("<f4").tobytes())
        self._file.write(b"".join((_HEADER.pack(image_id, len(order)), *parts)))
        self._file.flush()
        return Record(image_id, self._path, start, len(order))


def find_records(path: Path) -> list[Record]:
    """The complete records in a file; the process may have been killed while it wrote the last one."""
    size = path.stat().st_size
    found: list[Record] = []
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            record = Record(path=path, start=file.tell(), **_fields(header))
            if record.number < 0 or record.end > size:
                break
            found.append(record)
            file.seek(record.end)
    return found


def _fields(header: bytes) -> dict[str, int]:
    return dict(zip(("image_id", "number"), _HEADER.unpack(header), strict=True))


def write_npz(path: Path, records: Sequence[Record], *, made_with: str) -> int:
    """Writes a file of proposals (proposals.py) from records, in their order; returns the number M.

    ``made_with`` is stored in it unless it is empty. Equal proposals make equal files, byte for byte.
    """
    offsets = np.cumsum([0, *(record.number for record in records)], dtype=np.int64)
    total = int(offsets[-1])
    with ExitStack() as stack:
        files = {p: stack.enter_context(p.open("rb")) for p in dict.fromkeys(r.path for r in records)}
        archive = stack.enter_context(zipfile.ZipFile(path, "w"))
        _write(archive, "ids", np.array([record.image_id for record in records], np.int64))
        _write(archive, "offsets", offsets)
        boxes = (_read(files[r.path], r.start, r.number * _BOX) for r in records)
        _write_parts(archive, "boxes", (total, 4), boxes)
        logits = (_read(files[r.path], r.start + r.number * _BOX, r.number * _LOGIT) for r in records)
        _write_parts(archive, "objectness", (total,), logits)
        if made_with:
            _write(archive, "made_with", np.array(made_with))
    return total


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _write_parts(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], parts: Iterable[bytes]) -> None:
    """Writes a float32 array of ``shape`` from its bytes."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part)
