import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.pixels import RGB, PixelFormat

RGBD = PixelFormat(4, "float32")


def test_the_format_is_the_config_s():
    config = Config()
    assert PixelFormat.of(config) == RGB and RGB.is_rgb
    config.model.pixel_mean = config.model.pixel_std = (1.0, 2.0, 3.0, 4.0)
    config.model.pixel_type, config.data.shown_channels = "float32", (3,)
    assert PixelFormat.of(config) == PixelFormat(4, "float32", (3,))
    assert not RGBD.is_rgb and PixelFormat(shown=(2, 1, 0)).is_rgb


def test_pixels_of_the_format_are_kept_as_they_are():
    image = np.zeros((2, 3, 4), np.uint8)
    assert PixelFormat(4).convert(image) is image
    deep = np.array([[[0, 255, 4095, 65535]]], np.uint16)
    floats = RGBD.convert(deep)
    assert floats.dtype == np.float32 and floats.tolist() == deep.tolist()


def test_one_channel_is_gray():
    gray = np.array([[1, 2]], np.uint8)
    assert PixelFormat(1).convert(gray).tolist() == [[[1], [2]]]
    assert RGB.convert(gray).tolist() == [[[1, 1, 1], [2, 2, 2]]]
    assert PixelFormat(1).convert(gray[:, :, None]).tolist() == [[[1], [2]]]


@pytest.mark.parametrize(
    ("wanted", "image", "message"),
    [
        (
            PixelFormat(4),
            np.zeros((2, 3, 3), np.uint8),
            r"it has 3 channels \(\[2, 3, 3\] uint8\), but the model takes \[H W 4\] uint8: as many channels "
            r"as model\.pixel_mean has values",
        ),
        (PixelFormat(4), np.zeros((2, 3), np.uint8), "it has 1 channels"),
        (PixelFormat(1), np.zeros(3, np.uint8), "it has 1 axes"),
        (PixelFormat(1), np.zeros((0, 3), np.uint8), r"it is empty \(\[0, 3\] uint8\)"),
        (
            PixelFormat(4),
            np.zeros((2, 3, 4), np.uint16),
            r"its values are uint16 .*, but the model takes \[H W 4\] uint8; model\.pixel_type 'float32'",
        ),
        (RGBD, np.full((1, 1, 4), np.nan), "must be finite"),
        (RGBD, np.full((1, 1, 4), 1e300), "must be finite, but some are infinite, NaN or beyond float32"),
        (RGBD, np.zeros((1, 1, 4), bool), "its values are bool; they must be integers or floats"),
    ],
)
def test_other_pixels_are_errors(wanted, image, message):
    with pytest.raises(ValueError, match=message):
        wanted.convert(image)


def test_pictures_show_the_first_channels_or_those_named():
    image = np.arange(5, dtype=np.uint8)[None, None]
    assert PixelFormat(5).show(image).tolist() == [[[0, 1, 2]]]
    assert PixelFormat(5, shown=(4, 3, 0)).show(image).tolist() == [[[4, 3, 0]]]
    assert PixelFormat(5, shown=(4,)).show(image).tolist() == [[[4, 4, 4]]]
    assert PixelFormat(2).show(image[..., :2]).tolist() == [[[0, 0, 0]]]
    rgb = image[..., :3]
    assert RGB.show(rgb) is rgb
    assert RGB.show(np.array([[[0.6, 1.4, 255]]], np.float32)).tolist() == [[[1, 1, 255]]]  # torchvision's


def test_floats_are_stretched_between_two_percentiles():
    values = np.linspace(1000, 2000, 101, dtype=np.float32)  # the 2nd is 1020, the 98th 1980
    shown = PixelFormat(1, "float32").show(values[None, :, None])
    assert shown.dtype == np.uint8 and shown.shape == (1, 101, 3)
    assert shown[0, [0, 2, 50, 98, 100], 0].tolist() == [0, 0, 128, 255, 255]
    flat = PixelFormat(1, "float32").show(np.full((2, 2, 1), 7, np.float32))
    assert flat.max() == 0
