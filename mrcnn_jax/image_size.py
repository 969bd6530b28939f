"""The size of an image, from the header of its file."""

from collections.abc import Callable

from PIL import ExifTags, Image

from mrcnn_jax.channel_files import is_npy, is_tiff, npy_shape, tiff_size
from mrcnn_jax.image_formats import open_image
from mrcnn_jax.images import Size


def upright_size(data: bytes, *, name: str) -> tuple[Size, bool]:
    """The size of an image after its EXIF rotation, and whether the sides are exchanged by it.

    The pixels of a PNG are decoded, because its EXIF data may come after them. Raises ValueError, which
    begins with ``name``, if the bytes are not an image.
    """
    return _size(data, name, lambda image: image.getexif())


def header_size(data: bytes, *, name: str) -> Size:
    """The size of an image after its EXIF rotation, without decoding pixels: they may be too many.

    EXIF data after a PNG's pixels are not seen, so its sides may be exchanged. Raises as ``upright_size``.
    """
    size, _ = _size(data, name, Image.Image.getexif)
    return size


def _size(data: bytes, name: str, exif_of: Callable[[Image.Image], Image.Exif]) -> tuple[Size, bool]:
    try:
        if is_npy(data):
            height, width = npy_shape(data)[:2]
            return (height, width), False
        if is_tiff(data) and not _pillow_opens(data):
            return tiff_size(data), False
        with open_image(data) as image:
            width, height = image.size
            rotated = exif_of(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            if rotated and image.format != "TIFF":  # Pillow's size of a TIFF is upright already
                width, height = height, width
    except Exception as error:  # damaged headers make Pillow raise nearly anything
        raise ValueError(f"{name}: cannot be read: {error}") from error
    return (height, width), rotated


def _pillow_opens(data: bytes) -> bool:
    """Whether a TIFF is of a kind that Pillow reads: few are with more than three channels."""
    try:
        with open_image(data):
            return True
    except ValueError:
        return False
