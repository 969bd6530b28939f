import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import keypoints as keypoints_module

decode_keypoints = jax.jit(keypoints_module.decode_keypoints, static_argnames="score")
encode_keypoints = jax.jit(keypoints_module.encode_keypoints, static_argnames="size")

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
REFERENCE = np.load(FIXTURES / "torchvision_ops.npz")
DETECTRON2 = np.load(FIXTURES / "detectron2_keypoints.npz")


def decode(logits, boxes, *, score="logit"):
    """Decoded keypoints, with all boxes valid."""
    logits, boxes = jnp.asarray(logits, jnp.float32), jnp.asarray(boxes, jnp.float32)
    return np.asarray(decode_keypoints(logits, boxes, jnp.ones(len(boxes), bool), score=score))


def test_encode_by_hand():
    rois = jnp.array([[10.0, 20, 18, 24]])  # 4 x 4 cells of 2 x 1 pixels
    keypoints = jnp.array(
        [
            [
                [10.0, 20, 2],  # the first corner
                [13.9, 22.5, 1],  # column 1, row 2; occluded, but still a target
                [18, 24, 2],  # the last corner belongs to the last cell
                [18.5, 22, 2],  # outside
                [12, 22, 0],  # absent
            ]
        ]
    )
    cell, visible = encode_keypoints(keypoints, rois, size=4)
    np.testing.assert_array_equal(cell, [[0, 9, 15, 0, 0]])
    np.testing.assert_array_equal(visible, [[True, True, True, False, False]])


def test_encode_in_degenerate_region_is_not_visible():
    cell, visible = encode_keypoints(jnp.array([[[5.0, 5, 2]]]), jnp.array([[5.0, 5, 5, 9]]), size=56)
    assert not np.asarray(visible).any()
    np.testing.assert_array_equal(cell, [[0]])


def test_encode_rounds_as_torch_on_the_edge_of_cells():
    # 10.5 is 3 cells of 49 / 14 pixels, and 23 is 7 of 46 / 14. In torch, x * (14 * (1 / side)) is just under
    # 3, and 7; x * (14 / side) would be 3, and just under 7.
    cell, _ = encode_keypoints(jnp.array([[[10.5, 23, 2]]]), jnp.array([[0.0, 0, 49, 46]]), size=14)
    np.testing.assert_array_equal(cell, [[7 * 14 + 2]])


def test_encode_equals_torchvision():
    keypoints, rois = (jnp.asarray(REFERENCE[f"keypoints/{k}"]) for k in ("keypoints", "rois"))
    cell, visible = encode_keypoints(keypoints, rois, size=56)
    assert 0 < REFERENCE["keypoints/visible"].mean() < 1
    np.testing.assert_array_equal(visible, REFERENCE["keypoints/visible"])
    np.testing.assert_array_equal(cell, REFERENCE["keypoints/cell"])


def test_decode_by_hand():
    logits = np.zeros((1, 8, 8, 2))
    logits[0, 3, 5, 0], logits[0, 6, 2, 1] = 7, 4
    # A cell is one pixel, and the keypoint is at the centre of a cell.
    found = decode(logits, [[100, 200, 108, 208]])
    np.testing.assert_array_equal(found, [[[105.5, 203.5, 7], [102.5, 206.5, 4]]])
    # A cell is 2 x 4 pixels; the four pixels next to its centre are 1/4 of a cell away in x and 1/8 in y, and
    # the first of them is above and to the left. The kernel at a distance d < 1 is 1.25 d^3 - 2.25 d^2 + 1.
    weight = (1.25 / 4**3 - 2.25 / 4**2 + 1) * (1.25 / 8**3 - 2.25 / 8**2 + 1)
    found = decode(logits, [[100, 200, 116, 232]])
    np.testing.assert_allclose(found, [[[110.5, 213.5, 7 * weight], [104.5, 225.5, 4 * weight]]], rtol=1e-6)
    # A side of 15.2 pixels is resized to 16 narrower pixels.
    found = decode(logits, [[100, 200, 115.2, 232]])
    np.testing.assert_allclose(found[0, :, 0], [100 + 10.5 * 0.95, 100 + 4.5 * 0.95], rtol=1e-6)


def test_the_peak_need_not_be_at_the_highest_cell():
    # Pixels lie midway between two cells, with weights of -3/32, 19/32, 19/32, -3/32 along an axis. A single
    # cell contributes (19/32)^2 of its value, but four lower cells contribute (38/32)^2 of theirs.
    logits = np.zeros((1, 8, 8, 1))
    logits[0, 1, 1] = 1.0
    logits[0, 4:6, 4:6] = 0.75
    found = decode(logits, [[10, 20, 14, 24]])
    np.testing.assert_allclose(found, [[[12.5, 22.5, 0.75 * (38 / 32) ** 2]]], rtol=1e-6)


def test_probability_by_hand():
    # Two keypoints' heatmaps of four cells: two cells are log 2, the others are 0.
    logits = np.zeros((1, 2, 2, 2))
    logits[0, 1, 0, 0] = logits[0, 0, 1, 1] = logits[0, 1, 1, 1] = np.log(2)
    found = decode(logits, [[0, 0, 2, 2]], score="probability")
    np.testing.assert_allclose(found, [[[0.5, 1.5, 2 / 5], [1.5, 0.5, 2 / 6]]], rtol=1e-6)


@pytest.mark.parametrize("corner", [0, 7])
def test_decode_stays_in_the_box(corner):
    # The heatmap rises towards a corner: the peak is next to the corner of the box, not beyond it.
    ramp = np.abs(np.arange(8.0) - (7 - corner))
    logits = (ramp[:, None] + ramp[None])[None, :, :, None]
    x, y, _ = decode(logits, [[10, 20, 26, 52]])[0, 0]
    expected = (10, 20) if corner == 0 else (26, 52)
    assert abs(x - expected[0]) <= 1 and 10 < x < 26  # half a cell is 1 pixel in x, 2 in y
    assert abs(y - expected[1]) <= 2 and 20 < y < 52


def test_equals_torchvision():
    found = decode(REFERENCE["keypoints/maps"], REFERENCE["keypoints/boxes"])
    np.testing.assert_allclose(found[..., :2], REFERENCE["keypoints/decoded"], atol=0.01, rtol=0)
    np.testing.assert_allclose(found[..., 2], REFERENCE["keypoints/scores"], rtol=1e-5)


@pytest.mark.parametrize(("score", "column"), [("logit", 2), ("probability", 3)])
def test_equals_detectron2(score, column):
    """With heatmaps of noise, and boxes of 1 to 1344 pixels, some of them smaller than their heatmaps."""
    found = decode(DETECTRON2["eighths"] / 8, DETECTRON2["boxes"], score=score)
    np.testing.assert_allclose(found[..., :2], DETECTRON2["decoded"][..., :2], atol=0.01, rtol=0)
    np.testing.assert_allclose(found[..., 2], DETECTRON2["decoded"][..., column], rtol=1e-5)


def test_encode_and_decode_agree():
    rng = np.random.default_rng(0)
    rois = jnp.array([[10.0, 20, 80, 130]] * 3)
    points = rng.uniform([16, 29], [74, 121], (3, 4, 2))  # not in outer cells, whose peaks lie further out
    points = jnp.asarray(points, jnp.float32)
    keypoints = jnp.concatenate([points, jnp.full((3, 4, 1), 2.0)], axis=-1)
    cell, _ = encode_keypoints(keypoints, rois, size=14)
    logits = jnp.moveaxis(jax.nn.one_hot(cell, 14 * 14).reshape(3, 4, 14, 14), 1, -1)
    apart = np.abs(decode(logits, rois)[..., :2] - points)
    assert (apart <= np.array([70, 110]) / 14 / 2 + 0.5).all()  # half a cell and half a pixel


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_padding_decodes_to_zeros_and_has_no_effect(score):
    logits, boxes = DETECTRON2["eighths"][:4] / np.float32(8), DETECTRON2["boxes"][:4].copy()
    expected = decode(logits, boxes, score=score)
    logits[[1, 3]], boxes[1], boxes[3] = np.nan, np.nan, (-1e9, 0, 1e9, np.inf)
    found = decode_keypoints(logits, boxes, jnp.array([True, False, True, False]), score=score)
    np.testing.assert_array_equal(found[::2], expected[::2])
    np.testing.assert_array_equal(found[1::2], 0)


def test_batch_equals_its_images_one_by_one():
    logits, boxes = DETECTRON2["eighths"][:8] / np.float32(8), DETECTRON2["boxes"][:8]
    decode_batch = jax.jit(jax.vmap(partial(keypoints_module.decode_keypoints, score="logit")))
    found = decode_batch(
        logits.reshape(2, 4, *logits.shape[1:]), boxes.reshape(2, 4, 4), jnp.ones((2, 4), bool)
    )
    np.testing.assert_array_equal(found.reshape(8, -1, 3), decode(logits, boxes))


def test_the_result_does_not_depend_on_the_block_size():
    """The CPU's blocks are smaller than an accelerator's."""
    logits = DETECTRON2["eighths"][:8] / np.float32(8)
    pixels = np.ceil(np.maximum(DETECTRON2["boxes"][:8, 2:] - DETECTRON2["boxes"][:8, :2], 1)).astype(
        np.int32
    )
    indices = []
    for rows, columns in ((64, 128), (5, 7)):
        find = partial(keypoints_module._find_peaks, rows=rows, columns=columns)
        indices.append(jax.jit(jax.vmap(find))(logits, pixels)[1])
    np.testing.assert_array_equal(*indices)


def test_decode_of_degenerate_box_is_finite():
    assert np.isfinite(decode(np.ones((1, 8, 8, 1)), [[5, 5, 5, 2]])).all()


def test_an_unknown_score_is_an_error():
    with pytest.raises(
        ValueError, match=r"keypoint score \('likelihood'\) must be one of logit, probability"
    ):
        decode(np.ones((1, 8, 8, 1)), [[5, 5, 9, 9]], score="likelihood")
