"""Images of which parts are read, so that they need not fit in memory: TIFF and JPEG 2000 by rasterio, .npy.

Other files, and TIFF without rasterio, are read whole when they are opened. Files may come from strangers:
of GDAL's drivers only those of the two formats are used, and no file beside the image is read.
"""

import importlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import ExifTags, Image

from mrcnn_jax.channel_files import NPY_SUFFIX, is_tiff, open_npy
from mrcnn_jax.images import Size, read_image
from mrcnn_jax.pixels import RGB, PixelFormat

_DRIVERS = {"TIFF": "GTiff", "JPEG 2000": "JP2OpenJPEG"}
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
# Of GDAL: files beside the image are ignored; the bytes of decoded blocks that it keeps (else 5 % of memory).
_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "GDAL_CACHEMAX": 256 * 2**20,
}


class Georeference(NamedTuple):
    """Where an image lies on the earth."""

    transform: tuple[float, float, float, float, float, float]  # x = a column + b row + c, y = d ... e ... f
    crs: str | None  # of x and y, as "EPSG:32633"; None if it has no such number

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points ``[P 2]``, x y in pixels of the image, in the coordinates of its file."""
        a, b, c, d, e, f = self.transform
        x, y = np.asarray(points, np.float64).T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


class ImageWindows(Protocol):
    """An opened image. ``read`` may be called by several threads."""

    size: Size
    georeference: Georeference | None

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The pixels of a part of the image ``[height width C]``; ValueError if they cannot be read."""
        ...


@contextmanager
def open_windows(path: Path, pixels: PixelFormat = RGB) -> Iterator[ImageWindows]:
    """Opens an image whose parts are given as ``pixels``.

    Raises ValueError, naming the file and the reason, if it cannot be read or is of other ``pixels``. Photos
    are RGB of 8 bits: of a file for rasterio the bands that are red, green and blue, or one of gray.
    """
    kind = _kind(path)
    if kind is not None and find_spec("rasterio") and not _is_turned(path):
        with _open_raster(path, pixels, _DRIVERS[kind]) as windows:
            yield windows
    elif path.suffix.lower() == NPY_SUFFIX:
        yield _Array(path, open_npy(path), pixels)
    else:
        try:
            yield _Array(path, read_image(path, pixels), pixels)
        except ValueError as error:
            if kind is None or find_spec("rasterio"):
                raise
            raise ValueError(
                f"{error}; {kind} is read in parts by rasterio: pip install rasterio (the extra [raster])"
            ) from error


def _kind(path: Path) -> str | None:
    """The format for rasterio that a file begins as; None for another one."""
    try:
        with path.open("rb") as file:
            start = file.read(max(map(len, _JPEG_2000)))
    except OSError:
        return None  # what is wrong is said by what reads it
    if is_tiff(start):
        return "TIFF"
    return "JPEG 2000" if start.startswith(_JPEG_2000) else None


def _is_turned(path: Path) -> bool:
    """Whether the file says that it is not upright, which GDAL does not read."""
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except (
        Exception
    ):  # a damaged file can raise nearly anything; one that is too large or not TIFF raises, too
        return False


class _Array:
    """An image in an array, of which some may lie on the disk."""

    georeference: Georeference | None = None

    def __init__(self, path: Path, values: np.ndarray, pixels: PixelFormat) -> None:
        self.size: Size = (values.shape[0], values.shape[1])
        self._path, self._values, self._pixels = path, values, pixels
        self.read(0, 0, 1, 1)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        return _convert(self._path, self._values[top : top + height, left : left + width], self._pixels)


@contextmanager
def _open_raster(path: Path, pixels: PixelFormat, driver: str) -> Iterator[ImageWindows]:
    rasterio: Any = importlib.import_module("rasterio")
    with warnings.catch_warnings(), rasterio.Env(**_SETTINGS):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            dataset = rasterio.open(path, driver=driver)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        with dataset:
            yield _Raster(path, dataset, pixels)


class _Raster:
    """A dataset of rasterio."""

    def __init__(self, path: Path, dataset: Any, pixels: PixelFormat) -> None:
        self.size: Size = dataset.shape
        self._path, self._dataset, self._pixels = path, dataset, pixels
        self._bands = _rgb_bands(path, dataset) if pixels.is_rgb else _all_bands(dataset, pixels.channels)
        self._lock = threading.Lock()  # GDAL's datasets are for one thread at a time
        self.georeference: Georeference | None = None
        if not dataset.transform.is_identity:
            code = dataset.crs.to_epsg() if dataset.crs else None
            self.georeference = Georeference(tuple(dataset.transform)[:6], code and f"EPSG:{code}")
        self.read(0, 0, 1, 1)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        window = (top, top + height), (left, left + width)
        try:
            with self._lock:
                values = self._dataset.read(self._bands, window=window)
        except importlib.import_module("rasterio").errors.RasterioIOError as error:
            reason = error.__cause__ or error
            raise ValueError(f"{self._path}: cannot be read at row {top}, column {left}: {reason}") from error
        return _convert(self._path, np.ascontiguousarray(np.moveaxis(values, 0, -1)), self._pixels)


def _rgb_bands(path: Path, dataset: Any) -> list[int]:
    """The numbers, from 1, of the bands that are red, green and blue, or of the only one, if it is gray."""
    meanings = [meaning.name for meaning in dataset.colorinterp]
    if dataset.photometric is not None and dataset.photometric.name == "cmyk":
        meanings = ["cyan", "magenta", "yellow", "black"]
    if {"red", "green", "blue"} <= set(meanings):
        return [meanings.index(colour) + 1 for colour in ("red", "green", "blue")]
    if meanings[0] == "gray" and not set(meanings[1:]) - {"alpha"}:
        return [1, 1, 1]
    raise ValueError(
        f"{path}: its bands are {', '.join(meanings)}; must be red, green and blue, or gray "
        "(gdal_edit.py -colorinterp_1 red ... says so; for other bands see docs/channels.md)"
    )


def _all_bands(dataset: Any, channels: int) -> list[int]:
    """The numbers of all bands, without one of transparency that the model does not take."""
    count = dataset.count
    if count == channels + 1 and dataset.colorinterp[-1].name == "alpha":
        count = channels
    return list(range(1, count + 1))


def _convert(path: Path, values: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    try:
        return pixels.convert(values)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
