import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.data.affine import is_mirroring, rotate_pixels, rotated_size, rotation, warp_mask

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures/detectron2_crop.json").read_text())


def test_a_turn_by_hand():
    """By 90 degrees counter-clockwise, the right edge becomes the top: its upper corner is then left."""
    assert rotated_size((10, 20), 90) == (20, 10)
    moved = rotation((10, 20), 90)(np.array([[20.0, 0.0], [20.0, 10.0], [0.0, 0.0], [10.0, 5.0]]))
    np.testing.assert_allclose(moved, [[0, 0], [10, 0], [0, 20], [5, 10]], atol=1e-12)


@pytest.mark.parametrize("size", [(10, 20), (7, 7), (1, 300)])
@pytest.mark.parametrize("degrees", [0.0, 13.0, -45.0])
def test_all_of_the_image_fits_and_the_way_back_is_the_way(size, degrees):
    height, width = rotated_size(size, degrees)
    corners = np.array([[0, 0], [size[1], 0], [0, size[0]], [size[1], size[0]]], np.float64)
    moved = rotation(size, degrees)(corners)
    assert (moved > -0.51).all() and (moved < (width + 0.51, height + 0.51)).all()
    centre = np.array(size[::-1]) / 2
    back = rotation((height, width), -degrees)(moved)
    np.testing.assert_allclose(back - back.mean(axis=0), corners - centre, atol=1e-9)


def test_pixels_follow_the_points():
    """A bright dot is found where its centre goes."""
    for degrees in (10.0, -37.0, 45.0):
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[10:13, 44:47] = 255
        turned = rotate_pixels(pixels, degrees, fill=(0, 0, 0)).astype(float)[..., 0]
        assert turned.shape == rotated_size((40, 60), degrees)
        row, column = np.indices(turned.shape) + 0.5
        found = (column * turned).sum() / turned.sum(), (row * turned).sum() / turned.sum()
        np.testing.assert_allclose(found, rotation((40, 60), degrees)(np.array([45.5, 11.5])), atol=0.05)


def test_corners_are_filled():
    turned = rotate_pixels(np.zeros((40, 60, 3), np.uint8), 30.0, fill=(1, 2, 3))
    assert turned[0, 0].tolist() == turned[-1, -1].tolist() == [1, 2, 3] and not turned[35, 40].any()


def test_masks_move_exactly_by_whole_pixels_turns_and_flips():
    mask = np.random.default_rng(0).random((30, 50)) < 0.5
    cut = warp_mask(mask, lambda points: points - (7, 3), (20, 40))
    np.testing.assert_array_equal(cut, mask[3:23, 7:47])
    np.testing.assert_array_equal(warp_mask(mask, rotation((30, 50), 90), (50, 30)), np.rot90(mask))
    flipped = warp_mask(mask, lambda points: points * (-1, 1) + (50, 0), (30, 50))
    np.testing.assert_array_equal(flipped, mask[:, ::-1])
    np.testing.assert_array_equal(
        warp_mask(mask, lambda points: 3 * points, (90, 150)), mask.repeat(3, 0).repeat(3, 1)
    )


def test_mirror_images():
    assert is_mirroring(lambda points: points * (-1, 1)) and is_mirroring(lambda points: points * (1, -2))
    assert not is_mirroring(lambda points: points * (-1, -1)) and not is_mirroring(rotation((3, 4), 100))


def test_pixels_as_in_detectron2():
    """Both interpolate bilinearly; OpenCV rounds the weights to 1/32, and the borders differ."""
    wave = (np.indices((24, 32)).sum(axis=0)[..., None] * np.array([3, 2, 1])).astype(np.uint8)
    ours = rotate_pixels(wave, 20.0, fill=(0, 0, 0))[..., 0].astype(int)
    theirs = np.array(FIXTURE["turned_wave"])
    assert ours.shape == theirs.shape
    inside = rotate_pixels(np.full_like(wave, 255), 20.0, fill=(0, 0, 0))[..., 0] == 255
    inner = inside.copy()
    for axis in (0, 1):
        inner &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    assert inner.mean() > 0.4 and abs(ours - theirs)[inner].max() <= 2
