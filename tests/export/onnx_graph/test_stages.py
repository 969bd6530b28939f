"""Stages of the graph against the functions of ``mrcnn_jax/ops`` that define them, in ONNX Runtime."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.export.onnx_graph import boxes, keypoints, layers, proposals, regions, suppression
from mrcnn_jax.export.onnx_graph.arrays import columns
from mrcnn_jax.export.onnx_graph.graph import Graph
from mrcnn_jax.models.norm import GroupNorm
from mrcnn_jax.ops.anchors import half_sides, make_anchors
from mrcnn_jax.ops.boxes import clip_boxes, decode_boxes
from mrcnn_jax.ops.keypoints import decode_keypoints
from mrcnn_jax.ops.levels import assign_levels
from tests.export.onnx_graph.test_graph import run


def random_boxes(count: int, side: float = 100.0) -> np.ndarray:
    corners = np.random.default_rng(0).uniform(0, side, (count, 2, 2)).astype(np.float32)
    return np.sort(corners, axis=1).reshape(count, 4)


def test_suppression_by_hand():
    """The second box is the first's, of another class; the third overlaps the first by a half."""
    graph = Graph()
    found = graph.input("boxes", np.float32, ["n", 4])
    scores = graph.input("scores", np.float32, [2, "n"])
    for name, threshold in (("strict", 0.3), ("loose", 0.5)):
        kept = suppression.suppress(graph, found, scores, iou_threshold=threshold, most=2, above=0.0)
        graph.output(name, kept, np.int64, [name])
    own = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [40, 0, 50, 9]], np.float32
    )
    scores = np.array([[0.9, 0, 0.7, 0.6, 0.5], [0, 0.8, 0, 0, 0]], np.float32)
    strict, loose = run(graph, boxes=own, scores=scores)
    assert strict.tolist() == [0, 1, 3] and loose.tolist() == [0, 1, 2]  # two of a class


@pytest.mark.parametrize("limits", ["above", "both"])
def test_boxes_are_decoded_and_clipped_up_to_rounding(limits):
    graph, rng = Graph(), np.random.default_rng(1)
    weights = (10.0, 10.0, 5.0, 5.0)
    given, deltas = (graph.input(name, np.float32, ["n", 4]) for name in ("anchors", "deltas"))
    corners = boxes.decode(graph, deltas, columns(graph, given, 4), weights, scale_limits=limits)
    clipped = boxes.clip(graph, corners, graph.value(60.0), graph.value(90.0))
    graph.output("boxes", boxes.stack(graph, clipped), np.float32, ["n", 4])
    graph.output("large", boxes.is_nonempty(graph, clipped, 2.0), np.bool_, ["n"])
    anchors, values = random_boxes(300), rng.normal(0, 20, (300, 4)).astype(np.float32)
    found, large = run(graph, anchors=anchors, deltas=values)
    decoded = decode_boxes(jnp.asarray(values), jnp.asarray(anchors), weights, scale_limits=limits)
    expected = np.asarray(clip_boxes(decoded, jnp.array([60, 90])))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)
    sides = expected[:, 2:] - expected[:, :2]
    assert 0 < large.sum() < 300 and (large == (sides >= 2).all(axis=1)).mean() > 0.99


@pytest.mark.parametrize("rule", ["detectron2", "torchvision", "mmdetection"])
def test_levels_are_those_of_the_rule(rule):
    graph = Graph()
    config = ModelConfig(roi_level_rule=rule)
    given = graph.input("boxes", np.float32, ["n", 4])
    graph.output("levels", regions.assign_levels(graph, given, [2, 3, 4, 5], config), np.int64, ["n"])
    exact = [[0, 0, side, side] for side in (0, 1, 56, 112, 224, 448, 896, 1792)]
    own = np.concatenate([random_boxes(200, side=900), np.array(exact, np.float32)])
    (found,) = run(graph, boxes=own)
    expected = assign_levels(jnp.asarray(own), min_level=2, max_level=5, canonical_size=224.0, rule=rule)
    np.testing.assert_array_equal(found, expected)
    assert set(found.tolist()) == {2, 3, 4, 5}


def test_anchors_by_index():
    graph, grid, pitch = Graph(), (3, 5), (8, 7)
    halves = half_sides((16.0, 32.0), (0.5, 1.0), rounded=True)
    index = graph.input("index", np.int64, ["n"])
    corners = proposals.chosen_anchors(
        graph, index, halves, grid=graph.value(list(grid)), pitch=graph.value(list(pitch))
    )
    graph.output("anchors", boxes.stack(graph, corners), np.float32, ["n", 4])
    order = np.random.default_rng(0).permutation(3 * 5 * 4)
    (found,) = run(graph, index=order)
    make = partial(make_anchors, sizes=(16.0, 32.0), ratios=(0.5, 1.0), rounded=True)
    np.testing.assert_array_equal(found, np.asarray(make(grid, jnp.array(pitch)))[order])


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_keypoints_are_decoded(score):
    graph, rng = Graph(), np.random.default_rng(0)
    logits = graph.input("logits", np.float32, ["n", 3, 8, 8])
    given = graph.input("boxes", np.float32, ["n", 4])
    points = keypoints.decode(graph, logits, given, points=3, cells=8, score=score)
    graph.output("keypoints", points, np.float32, ["n", 3, 3])
    own, values = random_boxes(12, side=40), rng.normal(0, 3, (12, 3, 8, 8)).astype(np.float32)
    own[0] = 5, 5, 5.2, 9  # narrower than a pixel
    (found,) = run(graph, logits=values, boxes=own)
    decode = jax.jit(partial(decode_keypoints, score=score))
    expected = decode(jnp.asarray(values.transpose(0, 2, 3, 1)), jnp.asarray(own), jnp.ones(12, bool))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    (nothing,) = run(graph, logits=values[:0], boxes=own[:0])
    assert nothing.shape == (0, 3, 3)


def test_a_group_norm_of_any_number_of_maps():
    layer = GroupNorm(8, num_groups=2, epsilon=1e-5, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(3)
    layer.scale[...], layer.bias[...] = (jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(2))
    graph = Graph({id(layer): "norm"})
    given = graph.input("x", np.float32, ["n", 8, "h", "w"])
    graph.output("y", layers.norm(graph, layer, given), np.float32, ["n", 8, "h", "w"])
    x = rng.normal(2, 3, (3, 5, 4, 8)).astype(np.float32)
    (found,) = run(graph, x=x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), layer(jnp.asarray(x)), atol=1e-5)
    (found,) = run(graph, x=np.zeros((0, 8, 5, 4), np.float32))  # of a mask head without detections
    assert found.shape == (0, 8, 5, 4)
