"""Reads untrusted zip archives, whose entries cannot fill the memory."""

import io
import zipfile

_MIN_LIMIT = 2**26  # bytes (64 MiB) that any file may unpack to, however small
_MAX_RATIO = 20  # weights compress to 0.9 of their size; zeros, which may fill small files, to 0.001


def memory_limit(file_size: int) -> int:
    """How many bytes of memory the content of a file of ``file_size`` bytes may take."""
    return max(_MIN_LIMIT, _MAX_RATIO * file_size)


def open_zip(data: bytes) -> zipfile.ZipFile:
    """The zip archive in ``data``.

    Raises ValueError if its entries unpack to more than ``memory_limit``, BadZipFile if it is not an archive.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    size = sum(entry.file_size for entry in archive.infolist())
    if size > memory_limit(len(data)):
        raise ValueError(f"its {len(data)} bytes would unpack to {size}, more than weights do")
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of an entry, checked against the size and checksum that the archive states.

    Raises ValueError if it is shorter, and the errors of zipfile and zlib if it is damaged.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as entry:
        content = entry.read(size)  # without a size, zipfile would unpack everything before truncating it
    if len(content) != size:
        raise ValueError(f"{name} has {len(content)} bytes, must have {size}")
    return content
