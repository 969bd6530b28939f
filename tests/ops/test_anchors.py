import pathlib

import jax
import numpy as np
import pytest

from mrcnn_jax.ops.anchors import make_anchors

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")


def test_by_hand():
    anchors = make_anchors((8, 16), sizes=(32.0,), ratios=(1.0, 4.0), strides=(8,))
    assert list(anchors) == ["p3"]
    # One row of two cells, two ratios each; ratio 4 is 16 wide and 64 high.
    expected = [[-16, -16, 16, 16], [-8, -32, 8, 32], [-8, -16, 24, 16], [0, -32, 16, 32]]
    np.testing.assert_array_equal(anchors["p3"], expected)


def test_area_and_ratio_are_exact_not_rounded():
    box = make_anchors((4, 4), sizes=(32.0,), ratios=(0.5,), strides=(4,))["p2"][0]
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    np.testing.assert_allclose([width * height, height / width], [1024, 0.5], rtol=1e-6)
    assert width != round(width)


def test_rows_match_a_reshaped_head_output():
    height, width, stride, ratios = 3, 5, 4, (0.5, 1.0, 2.0)
    anchors = make_anchors((height * stride, width * stride), sizes=(10.0,), ratios=ratios, strides=(stride,))
    grid = np.asarray(anchors["p2"]).reshape(height, width, len(ratios), 4)
    centre = (grid[..., :2] + grid[..., 2:]) / 2
    np.testing.assert_allclose(centre[2, 4], [[16, 8]] * 3, atol=1e-5)
    side = grid[1, 1, :, 2:] - grid[1, 1, :, :2]
    np.testing.assert_allclose(side[:, 1] / side[:, 0], ratios, rtol=1e-5)


def test_level_sizes_round_up_like_the_pyramid():
    # 800 x 1344: P5 is 25 x 42, and P6 (max pool of stride 2 over P5) 13 x 21.
    def shape():
        sizes = (32.0, 64.0, 128.0, 256.0, 512.0)
        return make_anchors((800, 1344), sizes=sizes, ratios=(1.0,), strides=(4, 8, 16, 32, 64))

    counts = {name: level.shape[0] for name, level in jax.eval_shape(shape).items()}
    assert counts == {"p2": 200 * 336, "p3": 100 * 168, "p4": 50 * 84, "p5": 25 * 42, "p6": 13 * 21}


def test_are_computed_not_stored_in_the_program():
    def make():
        return make_anchors((512, 512), sizes=(32.0,), ratios=(0.5, 1.0, 2.0), strides=(4,))

    assert len(jax.jit(make).lower().as_text()) < 10_000


def test_equals_torchvision():
    anchors = make_anchors((64, 96), sizes=(32.0, 64.0, 128.0), ratios=(0.25, 1.0, 4.0), strides=(4, 8, 16))
    for name, level in anchors.items():
        np.testing.assert_allclose(level, REFERENCE[f"anchors/{name}"], rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"sizes \(32.0,\) and strides \(4, 8\)"):
        make_anchors((64, 64), sizes=(32.0,), ratios=(1.0,), strides=(4, 8))
    with pytest.raises(ValueError, match=r"stride 12 .* power of two"):
        make_anchors((64, 64), sizes=(32.0,), ratios=(1.0,), strides=(12,))
