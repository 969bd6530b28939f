"""Files with any number of channels, of any depth: NumPy's arrays and TIFF.

They may come from strangers: nothing is unpickled, and the size in a header is compared with limits before
anything of that size is allocated.
"""

import importlib
import io
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

NPY_SUFFIX = ".npy"

_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LARGEST = 2**31  # bytes, of a decoded image

# Compressions without loss, by their number in the file; a decoder for another one is not started.
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "Zstandard"}
_PHOTOMETRIC = (1, 2, 5)  # black is zero, RGB, several inks: all but those that mean other colours


def is_npy(data: bytes) -> bool:
    """Whether a file is an array that NumPy's ``save`` wrote."""
    return data.startswith(_NPY)


def is_tiff(data: bytes) -> bool:
    """Whether a file is a TIFF or BigTIFF."""
    return data.startswith(_TIFF)


def npy_shape(data: bytes) -> tuple[int, ...]:
    """The shape of the array in a .npy file, from its header."""
    return _npy_header(io.BytesIO(data))[0]


def read_npy(data: bytes) -> np.ndarray:
    """The array in a .npy file: ``[H W C]`` or ``[H W]``.

    Raises ValueError for arrays of anything but numbers, for images beyond the limits of ``check_size``, and
    unless the file has just as many bytes as its header says.
    """
    file = io.BytesIO(data)
    shape, fortran_order, dtype = _npy_header(file)
    wanted, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if wanted != found:
        raise ValueError(
            f"it has {found} bytes of values; its header says {wanted}, of {list(shape)} {dtype}"
        )
    values = np.frombuffer(data, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def open_npy(path: Path) -> np.ndarray:
    """The array in a .npy file, of which parts are read when they are used, so that it may be of any size.

    Raises ValueError, naming the file, as ``read_npy``.
    """
    try:
        with path.open("rb") as file:
            shape, fortran_order, dtype = _npy_header(file, limited=False)
            start = file.tell()
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran_order else "C")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


def _npy_header(file: BinaryIO, *, limited: bool = True) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape, the order and the type in the header, after which ``file`` then stands."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # of names that are not Latin, which only tables have
        raise ValueError(f"it is of version {version[0]}.{version[1]} of NumPy's format; must be 1.0 or 2.0")
    if dtype.kind not in "uif":
        raise ValueError(f"its values are of type {dtype}; must be integers or floats")
    if len(shape) not in (2, 3):
        raise ValueError(f"its array is {list(shape)}; must be [H W C] or [H W]")
    if limited:
        check_size(shape[0], shape[1], math.prod(shape) * dtype.itemsize)
    return shape, fortran_order, dtype


def read_tiff(data: bytes, channels: int) -> np.ndarray:
    """The values in a TIFF as they are, ``[H W C]``, or ``[H W]`` of one channel.

    They are the samples of the first page, in one plane or in several; or, if the file has as many pages of
    one sample as ``channels``, those of all pages, as ImageJ and others write them. Needs tifffile and
    imagecodecs. Raises ValueError, or for a damaged file nearly any exception, for other compressions than
    those of ``_COMPRESSIONS``, colours that are not the samples themselves, turned images, images beyond the
    limits of ``check_size``, and missing parts.
    """
    with _open(data) as file:
        page = file.pages[0]
        if page.samplesperpixel > 1 or channels == 1 or len(file.pages) != channels:
            return _read_page(page, data)
        pages = [file.pages[index] for index in range(channels)]
        check_size(page.imagelength, page.imagewidth, page.nbytes * channels)
        if len({(page.shape, page.dtype) for page in pages}) > 1:
            raise ValueError("its pages, each of one channel, are of different sizes or types")
        return np.stack([_read_page(page, data) for page in pages], axis=-1)


def tiff_size(data: bytes) -> tuple[int, int]:
    """The height and width of a TIFF's first page, from its header; raises as ``read_tiff``."""
    with _open(data) as file:
        page = file.pages[0]
        _check_page(page)
        return page.imagelength, page.imagewidth


def check_size(height: int, width: int, count: int) -> None:
    """Raises ValueError for more pixels than Pillow reads, or if their bytes, ``count``, exceed 2 GiB."""
    pixels = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    if height * width > pixels or count > _LARGEST:
        raise ValueError(
            f"it has {height} x {width} pixels of {count} bytes; must have at most {pixels} pixels and "
            f"{_LARGEST} bytes"
        )


def _open(data: bytes) -> Any:
    try:
        importlib.import_module("imagecodecs")  # without it, tifffile would decompress without limits
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise ValueError(
            "a TIFF of several channels, or as it is, needs tifffile and imagecodecs: pip install tifffile "
            "imagecodecs (the extra [tiff])"
        ) from error
    # No metadata of microscopes, which name other places in the file, and other files.
    others = {f"is_{kind}": False for kind in ("lsm", "ndpi", "scanimage", "eer", "ome", "shaped", "mdgel")}
    return tifffile.TiffFile(io.BytesIO(data), _multifile=False, **others)


def _check_page(page: Any) -> None:
    name = getattr(page.photometric, "name", page.photometric)
    if page.compression not in _COMPRESSIONS:
        raise ValueError(
            f"it is compressed as {getattr(page.compression, 'name', page.compression)}; the compressions "
            f"read are {', '.join(dict.fromkeys(_COMPRESSIONS.values()))}"
        )
    if page.photometric not in _PHOTOMETRIC:
        raise ValueError(f"its colours are stored as {name}; must be MINISBLACK, RGB or SEPARATED")
    if (turn := page.tags.valueof("Orientation", default=1)) != 1:
        raise ValueError(f"it is stored turned (orientation {turn}); must be upright")
    if page.dtype is None or page.dtype.kind not in "uif" or page.bitspersample not in (8, 16, 32, 64):
        raise ValueError(f"its values are of {page.bitspersample} bits; must be 8, 16, 32 or 64")
    if page.imagedepth != 1 or page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"its axes are {page.axes}; must be rows, columns and channels")
    check_size(page.imagelength, page.imagewidth, page.nbytes)
    # A tile may be much larger than the image.
    part = math.prod(page.chunks) * page.dtype.itemsize
    if part > _LARGEST:
        raise ValueError(f"its tiles are of {part} bytes; must be at most {_LARGEST}")


def _read_page(page: Any, data: bytes) -> np.ndarray:
    _check_page(page)
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # tifffile makes zeros of a part that is missing.
    if len(parts) < math.prod(page.chunked) or any(
        not size or start + size > len(data) for start, size in parts
    ):
        raise ValueError("it is cut off, or parts are missing")
    values = page.asarray(maxworkers=1)
    return np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
