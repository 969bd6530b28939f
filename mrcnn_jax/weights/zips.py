"""Zip archives read without trust: their entries cannot fill the memory."""

import io
import zipfile

_SMALL = 2**26  # bytes (64 MiB) that a file may unpack to however small it is
_RATIO = 20  # weights shrink to 0.9 of their size; zeros, of which small files may be full, to 0.001


def memory_limit(file_size: int) -> int:
    """The bytes that the content of a file of this size (bytes) may take in memory."""
    return max(_SMALL, _RATIO * file_size)


def open_zip(data: bytes) -> zipfile.ZipFile:
    """The archive.

    Raises ValueError if its entries unpack to more than ``memory_limit``, BadZipFile if it is no archive.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    size = sum(entry.file_size for entry in archive.infolist())
    if size > memory_limit(len(data)):
        raise ValueError(f"its {len(data)} bytes would unpack to {size}, more than weights do")
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry of exactly the size that the archive states, with the right checksum.

    Raises ValueError if it is shorter, and what zipfile and zlib raise if it is damaged.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as entry:
        content = entry.read(size)  # without a size, zipfile would unpack all there is before it cuts
    if len(content) != size:
        raise ValueError(f"{name} has {len(content)} bytes, must have {size}")
    return content
