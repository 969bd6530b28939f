"""The runner's resizing, in NumPy alone, against the package's."""

import numpy as np
import pytest

from mrcnn_jax import images
from mrcnn_jax.export import runner


def test_two_pixels_resized_by_hand():
    image = np.array([[[0, 0, 0], [100, 50, 20]]], np.uint8)
    expected = [[[0, 0, 0], [25, 13, 5], [75, 38, 15], [100, 50, 20]]]  # 1/4 and 3/4 between the centres
    assert runner.resize(image, (1, 4), "detectron2").tolist() == expected


@pytest.mark.parametrize("rule", ["detectron2", "torchvision", "mmdetection"])
def test_resizing_has_the_bits_of_the_package(rule):
    rng = np.random.default_rng(0)
    for n in range(150):
        old, new = rng.integers(1, 70, 2), rng.integers(1, 70, 2)
        new = (old // 2 + (old == 1), new, (old[0], new[1]), (new[0], old[1]), new)[n % 5]
        image = rng.integers(0, 256, (*old, 3)).astype(np.uint8)
        resized, expected = (
            runner.resize(image, tuple(new), rule),
            images.resize(image, tuple(new), rule=rule),
        )
        assert resized.dtype == expected.dtype
        np.testing.assert_array_equal(resized, expected, err_msg=f"{old} to {new}")
        height, width = rng.integers(1, 3000, 2).tolist()
        sides = {"short_side": int(rng.integers(1, 1500)), "long_side": int(rng.integers(1, 1500))}
        assert runner.resized_shape((height, width), *sides.values(), rule) == images.resized_shape(
            height, width, **sides, rule=rule
        )
