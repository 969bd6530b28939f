"""The runner's masks, pasted and encoded in NumPy alone, against the package's."""

import numpy as np
import pytest

from mrcnn_jax.export import runner
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.rle import Rle


def test_a_mask_pasted_by_hand():
    top, left, mask = runner.paste_at_centres(
        np.ones((2, 2), np.float32), np.float32([1, 0, 3, 2]), (3, 4), 0.5
    )
    whole = np.zeros((3, 4), int)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert whole.tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert runner.to_rle((top, left, mask), (3, 4)) == Rle.from_bitmap(whole == 1).compressed()


@pytest.mark.parametrize(
    ("rule", "paste"),
    [("detectron2", runner.paste_at_centres), ("torchvision", runner.paste_in_whole_pixels)],
)
def test_pasting_and_encoding_have_the_bits_of_the_package(rule, paste):
    rng = np.random.default_rng(0)
    for n in range(150):
        size = tuple(rng.integers(1, 90, 2).tolist())
        mask = rng.random((14, 14), np.float32) if n % 2 else np.float32(rng.random((28, 28)) > 0.3)
        corners = np.sort(rng.random((2, 2)) * size[::-1], axis=0)
        corners[0] *= n % 3 > 0  # boxes at the edges of the image
        corners[1] = size[::-1] if n % 4 == 0 else corners[1]
        box = corners.astype(np.float32).ravel()
        crop, expected = (
            paste(mask, box, size, 0.5),
            paste_mask(mask, box, size, 0.5, rule=rule),
        )
        assert crop[:2] == (expected.top, expected.left)
        np.testing.assert_array_equal(crop[2], expected.mask)
        rle = Rle.from_crop(expected.mask, top=expected.top, left=expected.left, image_size=size)
        assert runner.to_rle(crop, size) == rle.compressed()
