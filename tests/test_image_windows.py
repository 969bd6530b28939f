"""Parts of images, with and without rasterio."""

import warnings

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax import image_windows
from mrcnn_jax.image_windows import open_windows
from mrcnn_jax.pixels import RGB, PixelFormat

rasterio = pytest.importorskip("rasterio")

PLACE = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (70, 90, 3), np.uint8)


def write_raster(path, values, **settings):
    """A GeoTIFF of blocks of ``values [H W C]``."""
    height, width, count = values.shape
    settings = {"driver": "GTiff", "tiled": True, "blockxsize": 16, "blockysize": 32} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", height=height, width=width, count=count, dtype=values.dtype, **settings
        ) as file:
            file.write(np.moveaxis(values, -1, 0))
    return path


def assert_parts(path, values, pixels=RGB):
    with open_windows(path, pixels) as windows:
        assert windows.size == values.shape[:2]
        for top, left, height, width in ((0, 0, 70, 90), (5, 60, 20, 30), (69, 89, 1, 1)):
            part = windows.read(top, left, height, width)
            np.testing.assert_array_equal(part, values[top : top + height, left : left + width])
        return windows.georeference


def test_a_geotiff_is_read_in_parts_and_has_a_place(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", PICTURE, crs="EPSG:32633", transform=PLACE)
    monkeypatch.setattr(image_windows, "read_image", None)  # would read all of it
    place = assert_parts(path, PICTURE)
    assert place.crs == "EPSG:32633"
    assert place.place(np.array([[0, 0], [4, 10]])).tolist() == [[500_000, 5_000_000], [500_002, 4_999_995]]


def test_other_files_have_none(tmp_path):
    assert assert_parts(write_raster(tmp_path / "a.tif", PICTURE), PICTURE) is None
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    assert assert_parts(tmp_path / "a.png", PICTURE) is None


def test_jpeg_2000(tmp_path, monkeypatch):
    Image.fromarray(PICTURE).save(tmp_path / "a.jp2")
    monkeypatch.setattr(image_windows, "read_image", None)
    assert assert_parts(tmp_path / "a.jp2", PICTURE) is None


def test_bands_that_are_read(tmp_path):
    """Red, green and blue of more, one of gray, and all where the model takes them."""
    four = np.concatenate([PICTURE[..., ::-1], PICTURE[..., :1]], axis=2)
    path = write_raster(tmp_path / "four.tif", four, transform=PLACE)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [
            rasterio.enums.ColorInterp[name] for name in ("blue", "green", "red", "undefined")
        ]
    assert_parts(path, PICTURE)
    assert_parts(path, four, PixelFormat(4))
    gray = write_raster(tmp_path / "gray.tif", PICTURE[..., :1])
    assert_parts(gray, np.repeat(PICTURE[..., :1], 3, axis=2))
    deep = RNG.integers(0, 5000, (70, 90, 5), np.uint16)
    assert_parts(
        write_raster(tmp_path / "deep.tif", deep), deep.astype(np.float32), PixelFormat(5, "float32")
    )


def test_arrays_are_mapped(tmp_path):
    np.save(tmp_path / "a.npy", PICTURE)
    assert_parts(tmp_path / "a.npy", PICTURE)
    np.save(tmp_path / "f.npy", np.asfortranarray(PICTURE))
    assert_parts(tmp_path / "f.npy", PICTURE)
    with open_windows(tmp_path / "a.npy") as windows:
        assert isinstance(windows._values, np.memmap)


def test_a_turned_photograph_is_upright(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", tiffinfo={0x112: 6})
    with open_windows(tmp_path / "a.tif") as windows:
        np.testing.assert_array_equal(windows.read(0, 0, 90, 70), np.rot90(PICTURE, -1))


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (np.zeros((9, 9, 2), np.uint8), {}, "bands are gray, undefined; must be red, green and blue"),
        (np.zeros((9, 9, 3), np.uint16), {"photometric": "RGB"}, "its values are uint16"),
        (np.zeros((9, 9, 4), np.uint8), {"photometric": "CMYK"}, "bands are cyan, magenta, yellow, black"),
    ],
)
def test_pixels_that_are_no_photograph(tmp_path, values, settings, message):
    path = write_raster(tmp_path / "a.tif", values, tiled=False, blockxsize=9, **settings)
    with pytest.raises(ValueError, match=rf"a\.tif: .*{message}"), open_windows(path):
        pass


def test_damaged_files_are_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", PICTURE)
    path.write_bytes(path.read_bytes()[:-9000])
    with (
        pytest.raises(ValueError, match=r"a\.tif: cannot be read at row 0, column 0: "),
        open_windows(path) as windows,
    ):
        windows.read(0, 0, 70, 90)
    for name, content in (("b.tif", b"II*\0" + bytes(50)), ("c.jp2", b"\xff\x4f\xff\x51"), ("d.npy", b"x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read: "), open_windows(tmp_path / name):
            pass
    with pytest.raises(ValueError, match="absent: cannot be read: "), open_windows(tmp_path / "absent"):
        pass


def test_no_file_beside_it_and_no_other_driver_is_read(tmp_path):
    """A VRT names files and addresses; an .aux.xml beside a TIFF changes what it means."""
    inner = write_raster(tmp_path / "inner.tif", PICTURE)
    vrt = (
        '<VRTDataset rasterXSize="90" rasterYSize="70"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    (tmp_path / "a.vrt").write_text(vrt)
    with pytest.raises(ValueError, match=r"a\.vrt: cannot be read: "), open_windows(tmp_path / "a.vrt"):
        pass
    (tmp_path / "inner.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    with open_windows(inner) as windows:
        assert windows.georeference is None


def test_without_rasterio(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", PICTURE, crs="EPSG:32633", transform=PLACE)
    monkeypatch.setattr(image_windows, "find_spec", lambda name: None)
    assert assert_parts(path, PICTURE) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"a\.tif: .* pip install rasterio"), open_windows(path):
        pass
