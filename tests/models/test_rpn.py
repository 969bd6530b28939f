import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.models.rpn import Anchors, select_proposals, take_deltas


def test_deltas_of_anchors_by_hand():
    # Two cells of two anchors each; what the other anchors' deltas hold has no effect.
    deltas = jnp.array([[0.0, 1, 2, 3, jnp.nan, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]])
    np.testing.assert_array_equal(
        take_deltas(deltas, jnp.array([3, 0, 2])), [[12, 13, 14, 15], [0, 1, 2, 3], [8, 9, 10, 11]]
    )


def _propose(scores, boxes, in_image=True, **changes):
    """Proposals that are the anchors themselves: all deltas are 0."""
    outputs = {level: (jnp.array(s, jnp.float32), jnp.zeros((len(s), 4))) for level, s in scores.items()}
    anchors = {
        level: Anchors(jnp.array(b, jnp.float32), jnp.broadcast_to(jnp.array(in_image), len(b)))
        for level, b in boxes.items()
    }
    settings = {"pre_nms": 10, "post_nms": 3, "nms_iou": 0.7, "box_weights": (1.0,) * 4} | changes
    return select_proposals(outputs, anchors, jnp.array([50, 100]), **settings)


def test_best_first_clipped_and_suppressed_within_a_level():
    boxes = [[0, 0, 20, 20], [1, 0, 21, 20], [90, 40, 120, 70]]
    proposals = _propose({"p2": [1.0, 2.0, 3.0], "p3": [0.5]}, {"p2": boxes, "p3": [[0, 0, 20, 20]]})
    # on p2, the box with score 1 has IoU .905 with the one with score 2; p3 has only one box
    np.testing.assert_allclose(proposals.boxes, [[90, 40, 100, 50], [1, 0, 21, 20], [0, 0, 20, 20]])
    np.testing.assert_allclose(proposals.scores, [3.0, 2.0, 0.5])
    assert proposals.valid.tolist() == [True, True, True]


def test_only_the_best_boxes_of_a_level_enter_suppression():
    boxes = [[0, 0, 10, 10], [30, 0, 40, 10], [60, 0, 70, 10]]
    proposals = _propose({"p2": [1.0, 2.0, 3.0]}, {"p2": boxes}, pre_nms=2)
    assert proposals.valid.tolist() == [True, True, False]
    np.testing.assert_allclose(proposals.boxes[:2, 0], [60, 30])


def test_boxes_emptied_by_clipping_and_non_finite_scores_are_dropped():
    boxes = [[110, 10, 130, 30], [0, 0, 10, 10], [20, 20, 30, 30]]
    proposals = _propose({"p2": [9.0, np.nan, 1.0]}, {"p2": boxes})
    assert proposals.valid.tolist() == [True, False, False]
    np.testing.assert_allclose(proposals.boxes, [[20, 20, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_anchors_beyond_the_image_are_not_proposed():
    boxes = [[90, 10, 110, 30], [95, 10, 185, 30]]
    proposals = _propose({"p2": [1.0, 9.0]}, {"p2": boxes}, in_image=[True, False])
    assert proposals.valid.tolist() == [True, False, False]
    np.testing.assert_allclose(proposals.boxes[0], [90, 10, 100, 30])


def test_boxes_with_a_side_below_the_smallest_are_dropped():
    boxes = [[0, 0, 10, 4.5], [20, 0, 25, 5]]
    proposals = _propose({"p2": [9.0, 1.0]}, {"p2": boxes}, smallest_side=5.0)
    np.testing.assert_allclose(proposals.boxes, [[20, 0, 25, 5], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_nothing_is_fused_with_top_k_on_a_tpu(monkeypatch):
    def barriers():
        # A function of its own each time: JAX keeps what it has traced.
        program = jax.make_jaxpr(lambda scores: _propose({"p2": scores}, {"p2": [[0, 0, 9, 9]] * 3}).boxes)
        operations = [equation.primitive.name for equation in program(jnp.zeros(3)).eqns]
        return operations[: operations.index("top_k")].count("optimization_barrier")

    assert barriers() == 0
    monkeypatch.setattr("mrcnn_jax.runtime.barriers.platform", lambda: "tpu")
    assert barriers() == 1
