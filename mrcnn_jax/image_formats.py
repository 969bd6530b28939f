"""Opens image files of the formats that photographs come in, told apart by content.

Pillow has decoders for forty more formats. Some are little tested, and for EPS it starts another program, so
a file that only claims to be a photograph must not reach them.
"""

import contextlib
import functools
import importlib
import io
import struct

from PIL import Image

# Pillow's names. JPEG includes MPO (several pictures in one file). HEIF needs the package pillow-heif.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "JPEG2000", "PPM")

_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_OTHER_SIGNATURES = (
    *((b"%pdf", "PDF"), (b"<svg", "SVG"), (b"<?xml", "XML"), (b"pk\3\4", "ZIP")),
    (b"<!doctype", "HTML, such as the error page of a failed download"),
    (b"<html", "HTML, such as the error page of a failed download"),
    (b"version https://", "a pointer of Git LFS: fetch the file itself with git lfs pull"),
)
# Pillow's decoders of other formats read all kinds that photographs come in.
_KINDS_NOT_READ = {
    "TIFF": ", or of a kind that is not read, such as colours as floats, other channels "
    "(docs/channels.md), or 64 bits"
}


def open_image(data: bytes) -> Image.Image:
    """The opened image, whose pixels Pillow has yet to decode.

    Raises ValueError with the format found and those that can be read, if ``data`` is of none of them; and,
    for a damaged file, nearly any exception.
    """
    if not data:
        raise ValueError("the file is empty")
    formats = _readable()
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except (Image.UnidentifiedImageError, struct.error) as error:  # the latter for a few bytes
        raise ValueError(f"{_found(data)}; the formats read are {', '.join(formats)}") from error


def suffixes() -> tuple[str, ...]:
    """The suffixes, in lower case, of the files that count as images in a folder."""
    return (*_SUFFIXES, *((".heic", ".heif") if "HEIF" in _readable() else ()))


@functools.cache
def _readable() -> tuple[str, ...]:
    Image.init()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _found(data: bytes) -> str:
    """What a file is that could not be opened, by its first bytes; nothing is decoded."""
    start = data[:16].ljust(16, b"\0")
    for name in (*_readable(), *Image.ID):
        accept = Image.OPEN[name][1]
        if accept is not None and (accepted := accept(start)):
            if isinstance(accepted, str):  # why this build of Pillow cannot read it
                return f"{name}: {accepted}"
            if name in FORMATS:
                return f"damaged {name}{_KINDS_NOT_READ.get(name, '')}"
            return f"the file seems to be {name}"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "the file seems to be HEIF (HEIC), which needs the package pillow-heif"
    for signature, name in _OTHER_SIGNATURES:
        if start.lower().startswith(signature):
            return f"the file seems to be {name}"
    return "not an image, or of an unknown format"
