import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mrcnn_jax import image_formats, images
from mrcnn_jax.pixels import PixelFormat


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left, right):
    """An image of 4x6 pixels (height x width) with two colours side by side."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:] = left, right
    return Image.fromarray(pixels)


def test_reads_a_path_and_its_bytes_alike(tmp_path):
    data = encoded(halves((255, 0, 0), (0, 0, 255)))
    (tmp_path / "a.png").write_bytes(data)
    pixels = images.read_image(tmp_path / "a.png")
    assert pixels.shape == (4, 6, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[3, 5].tolist() == [0, 0, 255]
    np.testing.assert_array_equal(images.read_image(data), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P"])
def test_modes_become_rgb(mode):
    picture = halves((0, 0, 0), (255, 255, 255)).convert(mode)
    pixels = images.read_image(encoded(picture))
    assert pixels.shape == (4, 6, 3)
    assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[0, 5].tolist() == [255, 255, 255]


def test_transparency_is_dropped():
    picture = halves((10, 20, 30), (40, 50, 60)).convert("RGBA")
    picture.putalpha(0)
    assert images.read_image(encoded(picture))[0, 0].tolist() == [10, 20, 30]


def test_palette_with_transparency_as_bytes():
    picture = halves((10, 20, 30), (40, 50, 60)).quantize(4)
    pixels = images.read_image(encoded(picture, transparency=bytes([0, 128, 255, 255])))
    assert pixels[0, 0].tolist() == [10, 20, 30]


def test_cmyk_jpeg():
    picture = Image.new("CMYK", (16, 8), (0, 255, 255, 0))  # no cyan: red
    red, green, blue = images.read_image(encoded(picture, "JPEG", quality=95))[4, 8].astype(int)
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_high_byte(kind):
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    pixels = images.read_image(encoded(Image.fromarray(values), kind))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),  # 8 bits in a deeper file
        ([0, 15, 16, 256], [0, 0, 1, 16]),  # 12 bits
        ([0, 16, 2048, 4095], [0, 1, 128, 255]),
        ([0, 255, 256, 4096], [0, 0, 1, 16]),  # 16 bits
        ([0, 0x8000, 0xFFFF], [0, 128, 255]),
    ],
)
def test_deep_grayscale_is_scaled_by_the_range_it_uses(mode, values, expected):
    values = np.array([values])
    if mode == "I":
        picture = Image.fromarray(values.astype(np.int32))
    else:
        kind = ">u2" if mode == "I;16B" else "<u2"
        picture = Image.frombytes(mode, values.shape[::-1], values.astype(kind).tobytes())
    pixels = images.read_image(encoded(picture, "TIFF"))
    assert pixels[0, :, 0].tolist() == expected
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([-0.001, 1 / 255, 1.001], [0, 1, 255]),  # left over by resampling
        ([0, 1, 2.6, 255], [0, 1, 3, 255]),
        ([0, 8, 1600, 4095], [0, 0, 100, 255]),
        ([0, 256, 65535], [0, 1, 255]),
    ],
)
def test_floats_are_scaled_by_the_range_they_use(values, expected):
    pixels = images.read_image(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_in_which_0_is_white_is_inverted(kind):
    top = np.iinfo(kind).max
    data = encoded(Image.fromarray(np.array([[0, top // 2 + 1, top]], kind)), "TIFF")
    photometric = [struct.pack("<HHII", 262, 3, 1, value) for value in (1, 0)]
    assert data.count(photometric[0]) == 1
    assert images.read_image(data)[0, :, 0].tolist() == [0, 128, 255]
    assert images.read_image(data.replace(*photometric))[0, :, 0].tolist() == [255, 127, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([0, np.nan]), "must be finite"),
        (np.float32([0, -np.inf]), "must be finite"),
        (np.float32([-0.3, 0.5]), r"from -0\.3 to 0\.5; they must be from 0 to 65535"),
        (np.float32([0, 1e6]), r"from 0 to 1e\+06; they must be"),
        (np.int32([-1, 5]), "from -1 to 5; they must be"),
        (np.int32([0, 65536]), "from 0 to 65536; they must be"),
    ],
)
def test_gray_values_of_no_known_range_are_an_error(values, message):
    with pytest.raises(ValueError, match=f"cannot be read: its gray values .*{message}"):
        images.read_image(encoded(Image.fromarray(values[None]), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "PA", "CMYK", "YCbCr", "LAB"])
def test_colours_of_every_mode_of_tiff(mode):
    picture = Image.new("RGB", (4, 3), (204, 102, 51))
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    else:
        picture = picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    data = encoded(picture, "TIFF")
    assert Image.open(io.BytesIO(data)).mode == mode
    np.testing.assert_allclose(images.read_image(data), np.full((3, 4, 3), (204, 102, 51)), atol=3)


def test_premultiplied_colours_are_divided_by_their_transparency():
    gray = Image.new("LA", (2, 2), (200, 128)).convert("La")
    colour = Image.new("RGBA", (2, 2), (200, 100, 50, 128)).convert("RGBa")
    assert colour.getpixel((0, 0)) == (100, 50, 25, 128)
    np.testing.assert_allclose(images.to_rgb(colour)[0, 0], [200, 100, 50], atol=1)
    np.testing.assert_allclose(images.to_rgb(gray)[0, 0], [200, 200, 200], atol=1)
    hsv = Image.new("RGB", (2, 2), (255, 0, 0)).convert("HSV")
    assert images.to_rgb(hsv)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_only_the_first_frame_is_decoded(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=[*frames[1:]] * 3)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames > 1
        image.seek(0)
    opened = []
    with image_formats.open_image(data) as image:
        image.seek = opened.append
        red, _, blue = images.to_rgb(image)[8, 8].astype(int)
    assert red > 200 and blue < 60 and set(opened) <= {0}


def test_nearly_black_is_darker_than_a_dark_photograph():
    dark = np.random.default_rng(0).normal(3, 2, (64, 64, 3)).clip(0, 15).astype(np.uint8)
    assert images.is_nearly_black(dark) and images.is_nearly_black(np.zeros_like(dark))
    dark[5, 5] = (16, 0, 0)  # a star
    assert not images.is_nearly_black(dark)


def test_nearly_black_images_are_named_up_to_three():
    rule = "nearly black (no value reaches 16 of 255)"
    assert images.describe_nearly_black(["a"]).startswith(f"1 image is {rule}: a; ")
    assert images.describe_nearly_black(["a", "b", "c"]).startswith(f"3 images are {rule}: a, b, c; ")
    assert images.describe_nearly_black(list("abcde")).startswith(
        f"5 images are {rule}: a, b, c and 2 more; if they should not be, convert them to 8 bits"
    )


def test_exif_rotation_is_applied():
    picture = halves((0, 0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate the stored image clockwise
    pixels = images.read_image(encoded(picture, "JPEG", exif=exif, quality=95))
    assert pixels.shape == (6, 4, 3)
    assert pixels[0, 0, 0] < 60 and pixels[5, 0, 0] > 190  # the left side is now on top


def test_unreadable_files_name_file_and_reason(tmp_path):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)))
    cases = {
        "empty.png": (b"", "empty"),
        "text.jpg": (b"hello, not an image", "not an image"),
        "cut.png": (whole[: len(whole) // 2], "truncated"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.*{reason}"):
            images.read_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"absent\.png: cannot be read: No such file"):
        images.read_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        images.read_image(tmp_path)


@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
def test_what_never_ends_is_not_read(tmp_path, device):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "photo.jpg").symlink_to(device)
    with pytest.raises(ValueError, match=r"photo\.jpg: cannot be read: not a regular file"):
        images.read_image(tmp_path / "photo.jpg")


def test_a_sparse_file_does_not_fill_the_memory(tmp_path):
    with (tmp_path / "photo.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="it has 1099511627776 bytes, more than any image"):
        images.read_image(tmp_path / "photo.jpg")


def test_a_decompression_bomb_is_an_error(monkeypatch):
    data = encoded(Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ValueError, match=r"image of .* bytes: cannot be read: .*10000 pixels.*exceeds limit"):
        images.read_image(data)


@pytest.mark.parametrize("mode", ["L", "I;16", "F", "1"])
def test_gray_files_keep_their_values_as_one_channel(mode):
    values = {"L": [[3, 200]], "I;16": [[3, 60000]], "F": [[0.5, -7.25]], "1": [[0, 255]]}[mode]
    kind = {"L": np.uint8, "I;16": np.uint16, "F": np.float32, "1": bool}[mode]
    picture = Image.fromarray(np.array(values, kind))
    pixels = images.to_pixels(picture, PixelFormat(1, "float32"))
    assert pixels.dtype == np.float32 and pixels[..., 0].tolist() == values
    if mode in ("L", "I;16"):
        np.testing.assert_array_equal(images.read_image(encoded(picture), PixelFormat(1, "float32")), pixels)


def test_colours_are_three_channels_and_transparency_one_more_if_wanted():
    rgba = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    data = encoded(Image.fromarray(rgba))
    np.testing.assert_array_equal(images.read_image(data, PixelFormat(4)), rgba)
    np.testing.assert_array_equal(images.read_image(data, PixelFormat(3, "float32")), rgba[..., :3])
    for channels in (1, 2, 5):
        with pytest.raises(ValueError, match=rf"it has 3 channels .* takes \[H W {channels}\] uint8"):
            images.read_image(data, PixelFormat(channels))


def test_depths_that_pillow_would_cut_are_errors():
    header = b"\x89PNG\r\n\x1a\n"

    def chunk(kind, content):
        return (
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    size = (1).to_bytes(4, "big") * 2
    rgb16 = header + chunk(b"IHDR", size + bytes([16, 2, 0, 0, 0]))
    rgb16 += chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")
    assert images.read_image(rgb16).shape == (1, 1, 3)  # of a photograph, the high bytes
    with pytest.raises(ValueError, match=r"it has 16 bits per colour, of which Pillow reads 8; save it as"):
        images.read_image(rgb16, PixelFormat(3, "float32"))
    with pytest.raises(ValueError, match=r"it is WEBP; with model\.pixel_type 'float32' the formats read"):
        images.read_image(encoded(Image.new("RGB", (2, 2)), "WEBP"), PixelFormat(3, "float32"))
