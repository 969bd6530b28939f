import pathlib

import jax
import numpy as np
import pytest

from mrcnn_jax.ops.anchors import make_anchors

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")


_make_anchors = jax.jit(make_anchors, static_argnames=("grid", "sizes", "ratios", "rounded"))


def _anchors(grid, stride, **settings):
    settings = {"sizes": (32.0,), "ratios": (1.0,)} | settings
    return np.asarray(_make_anchors(grid=grid, stride=np.array(stride), **settings))


def test_by_hand():
    # One row of two cells with two ratios each; with ratio 4, an anchor is 16 wide and 64 high.
    expected = [[-16, -16, 16, 16], [-8, -32, 8, 32], [-8, -16, 24, 16], [0, -32, 16, 32]]
    np.testing.assert_array_equal(_anchors((1, 2), (8, 8), ratios=(1.0, 4.0)), expected)


def test_anchors_are_ordered_by_size_then_ratio():
    anchors = _anchors((1, 1), (16, 16), sizes=(4.0, 8.0), ratios=(1.0, 4.0))
    np.testing.assert_array_equal(anchors[:, 2:], [[2, 2], [1, 4], [4, 4], [2, 8]])


def test_rows_and_columns_may_have_different_strides():
    # As in torchvision's P6 for an 800 x 1344 image: 13 x 21 cells, strides of 61 and 64 pixels.
    anchors = _anchors((13, 21), (61, 64))
    np.testing.assert_array_equal(anchors[-1], [20 * 64 - 16, 12 * 61 - 16, 20 * 64 + 16, 12 * 61 + 16])


def test_area_and_ratio_are_exact_not_rounded():
    box = _anchors((1, 1), (4, 4), ratios=(0.5,))[0]
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    np.testing.assert_allclose([width * height, height / width], [1024, 0.5], rtol=1e-6)
    assert width != round(width)


def test_rounded_corners_by_hand():
    # Half of 32 / sqrt(2) is 11.3; half of 32 * sqrt(2) is 22.6.
    anchors = _anchors((1, 1), (4, 4), ratios=(0.5, 1.0, 2.0), rounded=True)
    np.testing.assert_array_equal(anchors, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
    # 2.5 and 3.5 are rounded to even.
    np.testing.assert_array_equal(_anchors((1, 1), (4, 4), sizes=(5.0, 7.0), rounded=True)[:, 2], [2, 4])


def test_rows_match_a_reshaped_head_output():
    height, width, ratios = 3, 5, (0.5, 1.0, 2.0)
    grid = np.asarray(_anchors((height, width), (4, 4), sizes=(10.0,), ratios=ratios)).reshape(3, 5, 3, 4)
    centre = (grid[..., :2] + grid[..., 2:]) / 2
    np.testing.assert_allclose(centre[2, 4], [[16, 8]] * 3, atol=1e-5)
    side = grid[1, 1, :, 2:] - grid[1, 1, :, :2]
    np.testing.assert_allclose(side[:, 1] / side[:, 0], ratios, rtol=1e-5)


def test_anchors_are_computed_not_stored_in_the_program():
    options = {"sizes": (32.0,), "ratios": (1.0,)}
    assert len(_make_anchors.lower(grid=(128, 128), stride=np.array([4, 4]), **options).as_text()) < 10_000


@pytest.mark.parametrize(
    ("level", "size", "grid"), [(2, 32.0, (16, 24)), (3, 64.0, (8, 12)), (4, 128.0, (4, 6))]
)
def test_equals_torchvision(level, size, grid):
    stride = 2**level
    anchors = _anchors(grid, (stride, stride), sizes=(size,), ratios=(0.25, 1.0, 4.0), rounded=True)
    np.testing.assert_array_equal(anchors, REFERENCE[f"anchors/p{level}"])
