import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import boxes as ops
from mrcnn_jax.ops.boxes import MAX_LOG_SCALE

area, clip_boxes, is_nonempty = (
    jax.jit(ops.area),
    jax.jit(ops.clip_boxes),
    jax.jit(ops.is_nonempty, static_argnums=1),
)
pairwise_ioa, pairwise_iou = jax.jit(ops.pairwise_ioa), jax.jit(ops.pairwise_iou)
encode_boxes = jax.jit(ops.encode_boxes, static_argnums=2)
decode_boxes = jax.jit(ops.decode_boxes, static_argnums=2)
REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
ONES = (1.0, 1.0, 1.0, 1.0)


def test_generalised_iou_by_hand():
    a = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 2, 2], [5, 5, 5, 5]])
    b = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 6, 2], [5, 5, 5, 5]])
    # equal; 8 of 24, a full frame; apart, in a frame of 12 that they fill by 8; without area
    expected = [1, 8 / 24, -4 / 12, 0]
    np.testing.assert_allclose(jax.jit(ops.generalized_iou)(a, b), expected, atol=1e-6)


DETECTRON2 = json.loads(
    (pathlib.Path(__file__).parents[1] / "fixtures" / "detectron2_losses.json").read_text()
)


@pytest.mark.parametrize(("kind", "iou"), [("diou", ops.distance_iou), ("ciou", ops.complete_iou)])
def test_ious_as_in_detectron2s_losses(kind, iou):
    def losses(found):
        return 1 - iou(found, jnp.asarray(DETECTRON2["wanted"], jnp.float32))

    found = jnp.asarray(DETECTRON2["found"], jnp.float32)
    np.testing.assert_allclose(jax.jit(losses)(found), DETECTRON2[kind]["losses"], rtol=1e-6, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda found: losses(found).sum()))(found)
    apart = slice(2, None)  # where sides are equal, torch and JAX take other subgradients
    np.testing.assert_allclose(gradient[apart], DETECTRON2[kind]["gradient"][apart], rtol=1e-4, atol=1e-6)


def test_distance_and_complete_iou_by_hand():
    """Side by side: centres 4 apart in a frame of 8 x 4. Then in the same place, 2 x 8 and 8 x 2."""
    a, b = np.array([[0, 0, 4, 4.0], [3, 0, 5, 8]]), np.array([[4, 0, 8, 4.0], [0, 3, 8, 5]])
    np.testing.assert_allclose(jax.jit(ops.distance_iou)(a, b), [-16 / 80, 4 / 28], rtol=1e-6)
    v = 4 / np.pi**2 * (np.arctan(4) - np.arctan(1 / 4)) ** 2
    expected = [-16 / 80, 4 / 28 - v**2 / (1 - 4 / 28 + v)]
    np.testing.assert_allclose(jax.jit(ops.complete_iou)(a, b), expected, rtol=1e-6)


def test_iou_by_hand():
    a = np.array([[0, 0, 4, 4], [2, 2, 6, 4]])
    b = np.array([[0, 0, 4, 4], [2, 0, 4, 2], [4, 0, 8, 4], [0, 0, 8, 4]])
    expected = [[1, 4 / 16, 0, 16 / 32], [4 / 20, 0, 4 / 20, 8 / 32]]
    np.testing.assert_allclose(pairwise_iou(a, b), expected, rtol=1e-6)


def test_ioa_by_hand():
    boxes = np.array([[0.0, 0, 4, 4], [2, 2, 6, 4], [1, 1, 1, 3]])
    regions = np.array([[0.0, 0, 4, 4], [0, 0, 100, 3]])
    np.testing.assert_allclose(pairwise_ioa(boxes, regions), [[1, 0.75], [0.5, 0.5], [0, 0]], rtol=1e-6)


def test_degenerate_boxes_overlap_nothing():
    boxes = np.array([[1.0, 1, 1, 1], [2, 2, 2, 5], [5, 5, 3, 3], [0, 0, 4, 4]])
    np.testing.assert_array_equal(pairwise_iou(boxes, boxes), np.diag([0, 0, 0, 1]))
    np.testing.assert_array_equal(area(boxes), [0, 0, 0, 16])
    np.testing.assert_array_equal(is_nonempty(boxes), [False, False, False, True])
    sides = np.array([[0, 0, 2, 3], [0, 0, 3, 2], [0, 0, 3, 3]])
    np.testing.assert_array_equal(is_nonempty(sides, 3.0), [False, False, True])


def test_encode_by_hand():
    anchors = np.array([[0.0, 0, 10, 20]])
    boxes = np.array([[5.0, 10, 25, 20]])
    # Centre (15, 15), sides 20 and 10; the anchor's (5, 10), 10 and 20.
    expected = [[1.0, 0.25, np.log(2), -np.log(2)]]
    np.testing.assert_allclose(encode_boxes(boxes, anchors, ONES), expected, rtol=1e-6)
    weighted = encode_boxes(boxes, anchors, (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_allclose(weighted, expected * np.array([10, 10, 5, 5]), rtol=1e-6)


def test_decode_undoes_encode():
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 500, (2, 50, 2)), rng.uniform(1, 300, (2, 50, 2))
    boxes, anchors = np.asarray(np.concatenate([corner, corner + side], axis=-1), np.float32)
    weights = (10.0, 10.0, 5.0, 5.0)
    np.testing.assert_allclose(
        decode_boxes(encode_boxes(boxes, anchors, weights), anchors, weights), boxes, atol=2e-3
    )


def test_decode_clips_the_scale():
    anchor = np.array([[0.0, 0, 16, 16]])
    box = decode_boxes(np.array([[0.0, 0, 1e6, MAX_LOG_SCALE / 2]]), anchor, ONES)[0]
    np.testing.assert_allclose(box[2] - box[0], 1000, rtol=1e-5)
    np.testing.assert_allclose(box[3] - box[1], np.sqrt(16 * 1000), rtol=1e-5)


def test_decode_limits_how_far_a_box_shrinks_if_asked():
    decode_both = jax.jit(lambda *given: ops.decode_boxes(*given, ONES, scale_limits="both"))
    anchor, deltas = np.array([[0.0, 0, 1000, 1000]]), np.array([[0.0, 0, -1e6, 1e6]])
    box = decode_both(deltas, anchor)[0]
    np.testing.assert_allclose([box[2] - box[0], box[3] - box[1]], [16, 62_500], rtol=1e-5)
    assert float(decode_boxes(deltas, anchor, ONES)[0, 2]) == 500  # a box without width


def test_encoding_of_degenerate_boxes_is_finite():
    boxes = np.array([[3.0, 3, 3, 3], [5, 5, 2, 2], [0, 0, 4, 4]])
    assert np.isfinite(encode_boxes(boxes, boxes[::-1], (10.0, 10.0, 5.0, 5.0))).all()


def test_clip_uses_width_for_x_and_height_for_y():
    boxes = np.array([[-5.0, -5, 300, 300], [10, 20, 30, 40], [250, 150, 260, 160]])
    clipped = clip_boxes(boxes, np.array([100, 200]))
    np.testing.assert_array_equal(clipped, [[0, 0, 200, 100], [10, 20, 30, 40], [200, 100, 200, 100]])
    np.testing.assert_array_equal(is_nonempty(clipped), [True, True, False])


def test_results_are_float32_for_integer_and_half_precision_boxes():
    anchors = np.array([[0, 0, 8, 8]])
    boxes = jnp.array([[0, 0, 4, 4]], jnp.bfloat16)
    results = [
        pairwise_iou(anchors, boxes),
        pairwise_ioa(anchors, boxes),
        encode_boxes(boxes, anchors, ONES),
        decode_boxes(boxes, anchors, ONES),
        clip_boxes(boxes, np.array([2, 2])),
    ]
    assert {str(r.dtype) for r in results} == {"float32"}


@pytest.mark.parametrize("function", ["iou", "encoded", "decoded"])
def test_equals_torchvision(function):
    a, b, anchors, deltas = (np.asarray(REFERENCE[f"boxes/{k}"]) for k in ("a", "b", "anchors", "deltas"))
    weights = (10.0, 10.0, 5.0, 5.0)
    result = {
        "iou": lambda: pairwise_iou(a, b),
        "encoded": lambda: encode_boxes(a, anchors, weights),
        "decoded": lambda: decode_boxes(deltas, anchors, weights),
    }[function]()
    np.testing.assert_allclose(result, REFERENCE[f"boxes/{function}"], rtol=1e-5, atol=1e-5)


def test_iou_is_torchvisions_to_the_last_bit():
    """Also where LLVM would fuse a product and a sum into one rounding, as it does at the scripts' level."""
    iou = jax.jit(ops.pairwise_iou, compiler_options={"xla_backend_optimization_level": 2})
    np.testing.assert_array_equal(iou(REFERENCE["boxes/a"], REFERENCE["boxes/b"]), REFERENCE["boxes/iou"])


def test_encoded_offsets_are_torchvisions_to_the_last_bit():
    a, anchors = (np.asarray(REFERENCE[f"boxes/{name}"]) for name in ("a", "anchors"))
    encoded = encode_boxes(a, anchors, (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_array_equal(encoded[:, :2], REFERENCE["boxes/encoded"][:, :2])
