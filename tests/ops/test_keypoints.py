import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import keypoints as keypoints_module

decode_keypoints = jax.jit(keypoints_module.decode_keypoints)
encode_keypoints = jax.jit(keypoints_module.encode_keypoints, static_argnames="size")

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")


def test_encode_by_hand():
    rois = jnp.array([[10.0, 20, 18, 24]])  # 4 x 4 cells of 2 x 1 pixels
    keypoints = jnp.array(
        [
            [
                [10.0, 20, 2],  # the first corner
                [13.9, 22.5, 1],  # column 1, row 2; hidden counts
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


def test_encode_equals_torchvision():
    keypoints, rois = (jnp.asarray(REFERENCE[f"keypoints/{k}"]) for k in ("keypoints", "rois"))
    cell, visible = encode_keypoints(keypoints, rois, size=56)
    assert 0 < REFERENCE["keypoints/visible"].mean() < 1
    np.testing.assert_array_equal(visible, REFERENCE["keypoints/visible"])
    np.testing.assert_array_equal(cell, REFERENCE["keypoints/cell"])


def test_decode_by_hand():
    # One cell stands out: the peak is its centre. Cells are 2 x 4 pixels.
    logits = jnp.zeros((1, 8, 8, 2)).at[0, 3, 5, 0].set(7.0).at[0, 6, 2, 1].set(4.0)
    decoded = decode_keypoints(logits, jnp.array([[100.0, 200, 116, 232]]))
    np.testing.assert_allclose(decoded, [[[111, 214, 7], [105, 226, 4]]], rtol=1e-6)


def test_decode_between_two_equal_cells():
    logits = jnp.zeros((1, 8, 8, 1)).at[0, 4, 3:5, 0].set(1.0)
    decoded = decode_keypoints(logits, jnp.array([[0.0, 0, 8, 8]]))[0, 0]
    np.testing.assert_allclose(decoded[:2], [4, 4.5], atol=1e-6)  # midway in x, mid-cell in y
    assert decoded[2] > 1  # the cubic overshoots


@pytest.mark.parametrize("corner", [0, 7])
def test_decode_stays_in_the_box(corner):
    # Rising towards a corner of the map: the peak is the corner of the box, not beyond.
    ramp = jnp.abs(jnp.arange(8.0) - (7 - corner))
    logits = (ramp[:, None] + ramp[None])[None, :, :, None]
    x, y, _ = decode_keypoints(logits, jnp.array([[10.0, 20, 26, 52]]))[0, 0]
    expected = (10, 20) if corner == 0 else (26, 52)
    assert abs(x - expected[0]) <= 1 and 10 <= x <= 26  # half a cell is 1 pixel in x, 2 in y
    assert abs(y - expected[1]) <= 2 and 20 <= y <= 52


def test_decode_is_near_torchvision():
    maps, boxes = (jnp.asarray(REFERENCE[f"keypoints/{k}"]) for k in ("maps", "boxes"))
    decoded = decode_keypoints(maps, boxes)
    cell = np.asarray(boxes[:, None, 2:] - boxes[:, None, :2]) / maps.shape[1]  # pixels
    assert cell.min() > 1 and cell.max() < 16
    apart = np.abs(decoded[..., :2] - REFERENCE["keypoints/decoded"])
    assert (apart <= 0.5 + cell / 32 + 1e-3).all()
    np.testing.assert_allclose(decoded[..., 2], REFERENCE["keypoints/scores"], atol=0.15)


def test_encode_and_decode_agree():
    rng = np.random.default_rng(0)
    rois = jnp.array([[10.0, 20, 80, 130]] * 3)
    points = rng.uniform([16, 29], [74, 121], (3, 4, 2))  # off the outer cells, whose peaks lean outwards
    points = jnp.asarray(points, jnp.float32)
    keypoints = jnp.concatenate([points, jnp.full((3, 4, 1), 2.0)], axis=-1)
    cell, _ = encode_keypoints(keypoints, rois, size=14)
    logits = jnp.moveaxis(jax.nn.one_hot(cell, 14 * 14).reshape(3, 4, 14, 14), 1, -1)
    apart = np.abs(decode_keypoints(logits, rois)[..., :2] - points)
    assert (apart <= np.array([70, 110]) / 14 / 2 + 1e-3).all()


def test_decode_of_degenerate_box_is_finite():
    assert np.isfinite(decode_keypoints(jnp.ones((1, 8, 8, 1)), jnp.array([[5.0, 5, 5, 2]]))).all()
