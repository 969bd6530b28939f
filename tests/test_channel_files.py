"""Files are read back as they were written, and damaged or hostile ones are errors."""

import io
import struct
import sys

import numpy as np
import pytest

from mrcnn_jax import channel_files
from mrcnn_jax.channel_files import npy_shape, read_npy, read_tiff, tiff_size
from mrcnn_jax.images import read_image
from mrcnn_jax.pixels import PixelFormat

IMAGE = np.random.default_rng(0).integers(0, 60000, (9, 7, 4)).astype(np.uint16)


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npy_header(text):
    """A file of version 1.0 with any header, and no values."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.fixture
def tiff():
    """A function that writes a TIFF, by default of samples side by side."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")

    def write(array, **options):
        buffer = io.BytesIO()
        settings = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(buffer, array, **settings | options)
        return buffer.getvalue()

    return write


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, ">u2", np.int16, np.float32, np.float64])
def test_arrays_are_read_back(kind):
    image = (IMAGE / 300).astype(kind)
    for array in (image, np.asfortranarray(image), image[:, :, 0]):
        found = read_npy(npy(array))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    assert npy_shape(npy(image)) == (9, 7, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(IMAGE)[:-1], r"it has 503 bytes of values; its header says 504, of \[9, 7, 4\] uint16"),
        (npy(IMAGE) + b"\0", "it has 505 bytes of values"),
        (npy(IMAGE[None]), r"its array is \[1, 9, 7, 4\]; must be \[H W C\] or \[H W\]"),
        (npy(np.array([[{}]], object), allow_pickle=True), "its values are of type object"),
        (npy(np.zeros((2, 2), "U3")), "its values are of type <U3; must be integers or floats"),
        (npy(np.zeros((2, 2), bool)), "its values are of type bool"),
        (npy(np.zeros((2, 2), "u1,f4")), "must be integers or floats"),
        (npy(np.zeros((2, 2), complex)), "its values are of type complex128"),
        (npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (99999, 99999, 9)}"), "at most"),
        (npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (9, 9, 999999999)}"), "at most"),
        (npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (9, 9)}"), "header says 162"),
        (npy_header("__import__('os')"), "cannot be read"),
        (npy(IMAGE)[:20], "cannot be read"),
        (npy(IMAGE).replace(b"\x01\x00", b"\x03\x00", 1), r"version 3\.0 of NumPy's format"),
    ],
)
def test_damaged_and_hostile_arrays_are_errors(data, message, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_image(tmp_path / "a.npy", PixelFormat(4, "float32"))
    assert str(error.value).startswith(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
def test_tiffs_are_read_back(tiff, kind, compression):
    image = (IMAGE / 300).astype(kind)
    planes = np.moveaxis(image, -1, 0)
    for data in (
        tiff(image, compression=compression, rowsperstrip=2),
        tiff(image, compression=compression, tile=(16, 16)),
        tiff(planes, compression=compression, planarconfig="separate"),
        tiff(planes, compression=compression, planarconfig=None),  # a page for each channel
        tiff(image, compression=compression, byteorder=">", bigtiff=True),
        *([tiff(image, compression=compression, predictor=True)] if compression == "lzw" else []),
    ):
        found = read_tiff(data, 4)
        assert found.dtype == kind
        np.testing.assert_array_equal(found, image)
        assert tiff_size(data) == (9, 7)
    np.testing.assert_array_equal(read_tiff(tiff(image[:, :, 0], compression=compression), 1), image[:, :, 0])


def test_a_file_is_recognised_by_its_content(tiff, tmp_path):
    for data in (npy(IMAGE), tiff(IMAGE)):
        (tmp_path / "image.jpg").write_bytes(data)
        found = read_image(tmp_path / "image.jpg", PixelFormat(4, "float32"))
        np.testing.assert_array_equal(found, IMAGE.astype(np.float32))


def test_pages_that_are_not_the_channels_are_errors(tiff):
    data = tiff(np.moveaxis(IMAGE, -1, 0), planarconfig=None)
    with pytest.raises(ValueError, match=r"it has 1 channels .*, but the model takes \[H W 5\] float32"):
        read_image(data, PixelFormat(5, "float32"))
    np.testing.assert_array_equal(read_tiff(data, 1), IMAGE[:, :, 0])  # as of any file with pages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "jpeg2000"}, "it is compressed as .*; the compressions read are none, LZW, deflate"),
        ({"photometric": "miniswhite"}, "its colours are stored as MINISWHITE; must be MINISBLACK, RGB"),
        ({"extratags": [(274, 3, 1, 6, True)]}, r"it is stored turned \(orientation 6\); must be upright"),
    ],
)
def test_kinds_that_are_not_read_are_errors(tiff, options, message):
    with pytest.raises(ValueError, match=message):
        read_image(tiff(IMAGE[:, :, 0], **options), PixelFormat(1, "float32"))


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_cut_off_anywhere_is_an_error(tiff, compression):
    data = tiff(IMAGE, compression=compression, rowsperstrip=2)
    for length in range(1, len(data), 13):
        try:
            found = read_image(data[:length], PixelFormat(4, "float32"))
        except ValueError as error:
            assert "cannot be read" in str(error)
        else:  # only bytes that mean nothing are missing
            np.testing.assert_array_equal(found, IMAGE)


def test_a_tiff_that_claims_to_be_huge_is_not_decoded(tiff):
    data = bytearray(tiff(np.zeros((512, 512, 4), np.uint16), compression="zlib"))
    for tag in (256, 257):  # width and height: a number of 32 bits
        place = data.index(struct.pack("<HHI", tag, 4, 1))
        data[place + 8 : place + 12] = struct.pack("<I", 200_000)
    with pytest.raises(ValueError, match=r"it has 200000 x 200000 pixels of .* bytes; must have at most"):
        read_image(bytes(data), PixelFormat(4, "float32"))


@pytest.mark.parametrize("library", ["tifffile", "imagecodecs"])
def test_the_error_without_a_library_says_what_to_install(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    if library == "tifffile":
        monkeypatch.setitem(sys.modules, "imagecodecs", channel_files)  # some module, so that it is there
    with pytest.raises(ValueError, match=r"needs tifffile and imagecodecs: pip install tifffile imagecodecs"):
        read_image(b"II*\0" + bytes(100), PixelFormat(4))
