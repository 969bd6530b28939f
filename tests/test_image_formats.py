import io
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageFile

from mrcnn_jax import image_formats, images


def encoded(kind, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (8, 6), 200).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [kind for kind in image_formats.FORMATS if kind != "HEIF"])
def test_formats_of_photographs_are_read(kind):
    assert images.read_image(encoded(kind, "L" if kind in ("GIF", "PPM") else "RGB")).shape == (6, 8, 3)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO", "PCX", "SGI", "DDS", "XBM"])
def test_other_formats_are_not_opened(kind, tmp_path, monkeypatch):
    data = encoded(kind, "1" if kind == "XBM" else "RGB")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)

    def reached(*_):
        raise AssertionError("a decoder for another format was called")

    Image.init()
    monkeypatch.setattr(Image, "OPEN", {
        name: (factory if name in image_formats.FORMATS else reached, accept)
        for name, (factory, accept) in Image.OPEN.items()
    })  # fmt: skip
    with pytest.raises(
        ValueError, match=r"photo\.jpg: cannot be read: .*; the formats read are JPEG, PNG, TIFF"
    ):
        images.read_image(path)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "seems to be EPS;"),
        (b"%PDF-1.7", "seems to be PDF;"),
        (b"<svg xmlns=", "seems to be SVG;"),
        (b"GIF89a", "damaged GIF;"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG;"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"HEIF \(HEIC\), which needs the package pillow-heif;"),
        (b"<!DOCTYPE html><html>", "seems to be HTML, such as the error page of a failed download;"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS: fetch .* git lfs pull;"),
        (b"ab", "not an image, or of an unknown format;"),
        (b"hello", "not an image, or of an unknown format;"),
        (b"", "the file is empty"),
    ],
)
def test_the_format_found_is_named(data, found):
    with pytest.raises(ValueError, match=found):
        image_formats.open_image(data)


def test_a_tiff_of_a_kind_that_pillow_lacks_is_not_only_called_damaged():
    bits = (258, 3, 1)  # BitsPerSample: one number of 16 bits
    data = encoded("TIFF", "F").replace(struct.pack("<HHIH", *bits, 32), struct.pack("<HHIH", *bits, 64))
    with pytest.raises(
        ValueError, match=r"damaged TIFF, or of a kind that is not read, such as .* 64 bits; "
    ):
        image_formats.open_image(data)


def test_heif_is_read_if_its_package_is_installed(monkeypatch):
    class HeifFile(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (8, 6), "L"
            self.tile = [ImageFile._Tile("raw", (0, 0, 8, 6), 12, "L")]

    def register():
        Image.register_open("HEIF", HeifFile, lambda prefix: prefix[4:12] == b"ftypheic")

    package = types.ModuleType("pillow_heif")
    package.register_heif_opener = register
    with monkeypatch.context() as patch:
        patch.setattr(Image, "OPEN", dict(Image.OPEN))
        patch.setattr(Image, "ID", list(Image.ID))
        patch.setitem(sys.modules, "pillow_heif", package)
        image_formats._readable.cache_clear()
        assert ".heic" in image_formats.suffixes()
        pixels = images.read_image(b"\0\0\0\x18ftypheic" + bytes([77] * 48))
    image_formats._readable.cache_clear()
    np.testing.assert_array_equal(pixels, np.full((6, 8, 3), 77))
