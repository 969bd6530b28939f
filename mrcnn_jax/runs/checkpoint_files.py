"""Checks the files of a checkpoint before orbax opens them, because a run may come from a stranger."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.json_files import read_json

# Keys in the one database file that holds all arrays; a slash would begin a path in another layout of orbax.
_NAME = re.compile(r"[^/\\\x00-\x1f]{1,1000}")

# Trained weights hardly compress, and small arrays, or those that are still zero, stay under the margin.
_MOST_COMPRESSED = 16
_MARGIN = 2**26  # bytes


class UnusableFilesError(ValueError):
    """The files of a checkpoint are not such as ``Checkpoints.save`` writes."""


def check_steps(directory: Path) -> None:
    """Checks that nothing that orbax reads of every checkpoint in ``directory`` is a device or a pipe.

    These are their metadata and metrics; ``check_files`` checks the arrays. Raises UnusableFilesError, naming
    the file.
    """
    for pattern in ("*/*", "*/metrics/*"):
        for path in directory.glob(pattern):
            # Another process may be saving, and remove its temporary files.
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UnusableFilesError(f"{path} is not a regular file")


def check_files(item: Path) -> int:
    """The size in bytes of the files of ``item``, the folder of a checkpoint's ``weights`` or ``training``.

    Raises UnusableFilesError, naming the file, unless all are regular files or links to such (devices and
    pipes never end), no folder is a link, and the arrays are in this folder's own database, by plain names;
    and nearly any exception if the metadata are damaged.
    """
    size = 0
    for folder, folders, files in os.walk(item):
        for name in folders:
            if (path := Path(folder, name)).is_symlink():
                raise UnusableFilesError(f"{path} is a link to a folder")
        for name in files:
            if not (path := Path(folder, name)).is_file():
                raise UnusableFilesError(f"{path} is not a regular file")
            size += path.stat().st_size
    metadata = item / "_METADATA"
    content = read_json(metadata)
    if content["use_ocdbt"] is not True or not (item / "manifest.ocdbt").is_file():
        raise UnusableFilesError(f"{metadata}: the arrays are not in OCDBT files of this folder")
    for entry in content["tree_metadata"].values():
        for key in entry["key_metadata"]:
            if not _NAME.fullmatch(str(key["key"])):
                raise UnusableFilesError(f"{metadata}: {key['key']!r} is not the name of an array")
    return size


def check_sizes(arrays: Iterable[Any], *, stored: int) -> None:
    """Raises UnusableFilesError if the arrays take far more memory than ``stored`` bytes can hold.

    ``arrays`` are orbax's metadata. An array that was never written takes no space in the files, but all of
    its shape in memory; and a part of it is decompressed as a whole.
    """
    size = 0
    for array in arrays:
        chunk = (array.storage.chunk_shape if array.storage else None) or ()
        size += max(math.prod(array.shape), math.prod(chunk)) * np.dtype(array.dtype).itemsize
    if size > _MOST_COMPRESSED * stored + _MARGIN:
        raise UnusableFilesError(f"its arrays take {size} bytes, but its files have only {stored}")
