"""Images that are resized by each system's rule, and padded to a canvas."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax import images

FIXTURE = Path(__file__).parent / "fixtures" / "torchvision_resize.npz"
CANVASES = ((800, 1344), (1344, 800), (1088, 1088))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (800, 1067)),  # 1066.67 rounds up, as in Detectron2
        (640, 480, (1067, 800)),
        (427, 640, (800, 1199)),
        (500, 1000, (667, 1333)),  # the long side binds: 800 x 1600 shrunk by 1333 / 1600, 666.5 rounds up
        (1, 1, (800, 800)),
        (10000, 50, (1333, 7)),
        (10000, 1, (1333, 1)),  # would be 0.13
    ],
)
def test_resized_shape(height, width, expected):
    assert images.resized_shape(height, width, short_side=800, long_side=1333) == expected


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (480, 640, 800, (800, 1066)),
        (503, 593, 800, (800, 943)),
        (319, 480, 640, (639, 963)),  # 319 * (640 / 319) is less than 640 in floating point
        (500, 1000, 800, (666, 1333)),
        (50, 10000, 800, (6, 1333)),
        (10000, 1, 800, (1333, 1)),  # torchvision fails here
    ],
)
def test_resized_shape_of_torchvision(height, width, short_side, expected):
    found = images.resized_shape(height, width, short_side=short_side, long_side=1333, rule="torchvision")
    assert found == expected


def test_resize_of_torchvision_by_hand():
    # Pixel centres are at -1/4, 1/4, 3/4 and 5/4 old pixels; the outer ones are clamped.
    pixels = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    found = images.resize(pixels, (1, 4), rule="torchvision")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 0], [0, 25, 75, 100])
    # Not antialiased: each new column is the mean of only two of the 8 old ones.
    stripes = np.zeros((1, 8, 3), np.uint8)
    stripes[:, 1::4] = 200
    np.testing.assert_allclose(images.resize(stripes, (1, 2), rule="torchvision")[0, :, 0], [100, 100])
    np.testing.assert_array_equal(images.resize(stripes, (1, 8), rule="torchvision"), stripes)


def test_resize_equals_torch():
    fixture = np.load(FIXTURE)
    for name in ("larger", "smaller"):
        expected = fixture[name]
        assert expected.shape[:2] == images.resized_shape(
            *fixture["image"].shape[:2],
            short_side=min(expected.shape[:2]),
            long_side=1000,
            rule="torchvision",
        )
        found = images.resize(fixture["image"], expected.shape[:2], rule="torchvision")
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_resize_of_mmdetection_by_hand():
    # Weights of 3/4 and 1/4 are whole 2048ths.
    pixels = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    found = images.resize(pixels, (1, 4), rule="mmdetection")
    assert found.dtype == np.uint8 and found[0, :, 0].tolist() == [0, 25, 75, 100]
    # Not antialiased, but for exactly half the size.
    stripes = np.zeros((2, 8, 3), np.uint8)
    stripes[:, 1::4] = 200
    assert images.resize(stripes, (2, 2), rule="mmdetection")[0, :, 0].tolist() == [100, 100]
    assert images.resize(stripes, (1, 4), rule="mmdetection")[0, :, 0].tolist() == [100, 0, 100, 0]
    assert images.resize(stripes, (2, 8), rule="mmdetection") is stripes


def test_resize_equals_opencv_bit_by_bit():
    fixture = np.load(FIXTURE.with_name("opencv_resize.npz"))
    for (height, width, *shape), expected in zip(
        fixture["cases"].tolist(), fixture["digests"].tolist(), strict=True
    ):
        image = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = images.resize(image, tuple(shape), rule="mmdetection")
        assert found.shape[:2] == tuple(shape)
        assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == expected, (height, width, shape)
    for number, sizes in enumerate(
        [(5, 7, 9, 4), (8, 12, 4, 6), (8, 12, 4, 9), (1, 3, 2, 8), (11, 6, 6, 11)]
    ):
        height, width, *shape = sizes
        image = np.random.default_rng([height, width]).uniform(0, 5000, (height, width, 4)).astype(np.float32)
        found = images.resize(image, tuple(shape), rule="mmdetection")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, fixture[f"floats_{number}"], atol=5e-3)  # 1e-6 of the range
    for height, width, *expected in fixture["scaled"].tolist():
        found = images.resized_shape(height, width, short_side=800, long_side=1333, rule="mmdetection")
        assert found == tuple(expected)


@pytest.mark.parametrize("rule", ["detectron2", "torchvision", "mmdetection"])
@pytest.mark.parametrize("shape", [(20, 9), (4, 6)])
def test_channels_are_resized_each_by_itself(rule, shape):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 5), dtype=np.uint8)
    found = images.resize(image, shape, rule=rule)
    rgb = images.resize(np.ascontiguousarray(image[..., 1:4]), shape, rule=rule)
    np.testing.assert_array_equal(found[..., 1:4], rgb)
    floats = images.resize(image.astype(np.float32), shape, rule=rule)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, found, atol=1)  # 8 bits are rounded after each axis
    if rule == "detectron2":
        deep = images.resize(image.astype(np.float32) * 256, shape, rule=rule)
        np.testing.assert_allclose(deep, floats * 256, rtol=1e-6)


def test_an_unknown_rule_is_an_error():
    rules = "it must be 'detectron2', 'torchvision' or 'mmdetection'"
    with pytest.raises(ValueError, match=f"resize is 'keras'; {rules}"):
        images.resized_shape(10, 10, short_side=8, long_side=8, rule="keras")
    with pytest.raises(ValueError, match="resize is 'keras'"):
        images.resize(np.zeros((10, 10, 3), np.uint8), (8, 8), rule="keras")


def test_canvas_is_the_smallest_that_holds_the_shape():
    assert images.choose_canvas((800, 1067), CANVASES) == (800, 1344)
    assert images.choose_canvas((1067, 800), CANVASES) == (1344, 800)
    assert images.choose_canvas((801, 801), CANVASES) == (1088, 1088)
    assert images.choose_canvas((800, 800), CANVASES) == (800, 1344)  # the first of two equal ones
    assert images.choose_canvas((10, 10), ((64, 64), (16, 16), (32, 32))) == (16, 16)
    with pytest.raises(ValueError, match="canvases is empty"):
        images.choose_canvas((10, 10), ())


def test_a_shape_too_large_for_every_canvas_shrinks_to_the_best():
    canvases = ((100, 100), (50, 200))
    assert images.choose_canvas((80, 320), canvases) == (50, 200)  # shrinks to 0.625, else to 0.3125
    assert images.shrink_to_canvas((80, 320), (50, 200)) == (50, 200)
    assert images.shrink_to_canvas((40, 90), (50, 200)) == (40, 90)
    assert images.shrink_to_canvas((1, 1000), (100, 100)) == (1, 100)
    fitted = images.fitted_shape(10, 40, short_side=80, long_side=320, canvases=canvases)
    assert fitted == ((50, 200), (50, 200))


@pytest.mark.parametrize("shape", [(1, 1), (10000, 50), (50, 10000), (333, 500)])
def test_fit_pads_with_zeros(shape):
    pixels = np.full((*shape, 3), 200, np.uint8)
    fitted = images.fit(pixels, short_side=60, long_side=100, canvases=((64, 128), (128, 64)))
    height, width = fitted.size
    assert fitted.image.shape in ((64, 128, 3), (128, 64, 3)) and fitted.image.dtype == np.uint8
    assert (fitted.image[:height, :width] == 200).all()
    assert fitted.image.sum() == 3 * 200 * height * width


def test_fit_with_the_torchvision_rule_keeps_fractions():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    fitted = images.fit(pixels, short_side=50, long_side=100, canvases=((64, 96),), rule="torchvision")
    assert fitted.size == (50, 66)
    assert fitted.image.shape == (64, 96, 3) and fitted.image.dtype == np.float32
    assert (fitted.image % 1 > 0).any()
    assert not fitted.image[50:].any() and not fitted.image[:, 66:].any()


def test_resize_antialiases():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert abs(images.resize(stripes, (8, 8))[:, 2:6].astype(int) - 100).max() <= 2
    assert images.resize(stripes, (8, 64)) is stripes


def test_padding_a_larger_image_is_an_error():
    with pytest.raises(ValueError, match="10x20 does not fit on a canvas of 16x16"):
        images.pad(np.zeros((10, 20, 3), np.uint8), (16, 16))
