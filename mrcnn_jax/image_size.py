"""The size of an image from the header of its file, before anything of that size is allocated."""

from PIL import ExifTags

from mrcnn_jax.channel_files import is_npy, is_tiff, npy_shape, tiff_size
from mrcnn_jax.image_formats import open_image
from mrcnn_jax.images import Size


def upright_size(data: bytes, *, name: str) -> tuple[Size, bool]:
    """The size of an image after its EXIF rotation, and whether the sides are exchanged by it.

    Raises ValueError, which begins with ``name``, if the bytes are not an image.
    """
    try:
        if is_npy(data):
            height, width = npy_shape(data)[:2]
            return (height, width), False
        if is_tiff(data) and not _pillow_opens(data):
            return tiff_size(data), False
        with open_image(data) as image:
            rotated = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            width, height = image.size
    except Exception as error:  # damaged headers make Pillow raise nearly anything
        raise ValueError(f"{name}: cannot be read: {error}") from error
    return ((width, height) if rotated else (height, width)), rotated


def _pillow_opens(data: bytes) -> bool:
    """Whether a TIFF is of a kind that Pillow reads: few are with more than three channels."""
    try:
        with open_image(data):
            return True
    except ValueError:
        return False
