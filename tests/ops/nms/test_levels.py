from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.distributed.sharding import map_images
from mrcnn_jax.ops.nms import levels, nms_levels

SAME = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)


def _run(boxes, scores, valid=None, *, form, max_outputs, iou_threshold=0.5):
    valid = [np.ones(len(b), bool) for b in boxes] if valid is None else valid
    settings = {"iou_threshold": iou_threshold, "max_outputs": max_outputs, "form": form}
    index, found = jax.jit(partial(nms_levels, **settings))(boxes, scores, valid)
    assert (np.asarray(index)[~np.asarray(found)] == 0).all()
    assert index.shape == found.shape == (max_outputs,)
    return np.asarray(index)[np.asarray(found)].tolist()


@pytest.fixture(params=["joint", "apart"])
def form(request):
    return request.param


def test_by_hand(form):
    # On the first level the second box overlaps the first; on the other, the same box stands alone.
    scores = [np.array([0.9, 0.8, 0.3], np.float32), np.array([0.85], np.float32)]
    assert _run([SAME, SAME[1:2]], scores, form=form, max_outputs=5) == [0, 3, 2]
    assert _run([SAME, SAME[1:2]], scores, form=form, max_outputs=2) == [0, 3]


def test_equal_scores_keep_the_order_of_levels_and_boxes(form):
    apart = np.array([[20.0 * i, 0, 20 * i + 10, 10] for i in range(3)], np.float32)
    scores = [np.array([0.5, 0.5, -0.0], np.float32), np.array([0.5, 0.0, -0.0], np.float32)]
    assert _run([apart, apart], scores, form=form, max_outputs=6) == [0, 1, 3, 2, 4, 5]


def test_more_outputs_than_boxes_and_nothing_valid(form):
    scores = [np.array([0.9, 0.8, 0.3], np.float32)] * 2
    valid = [np.zeros(3, bool), np.array([False, True, False])]
    assert _run([SAME, SAME], scores, valid, form=form, max_outputs=9) == [4]
    assert _run([SAME, SAME], scores, [np.zeros(3, bool)] * 2, form=form, max_outputs=2) == []


def test_levels_with_too_many_pairs_are_not_compared_all_at_once(monkeypatch):
    monkeypatch.setattr(levels, "_MAX_PAIRS", 10)
    scores = [np.array([0.9, 0.8, 0.3], np.float32)] * 2
    assert _run([SAME, SAME], scores, form="apart", max_outputs=5) == [0, 3, 2, 5]


@pytest.mark.parametrize("max_outputs", [20, 200])
def test_the_forms_are_equal(max_outputs):
    # Three images of three levels. Many scores tie, many IoUs equal the threshold, some boxes are empty, one
    # level of one image has no valid box, and boxes that are not valid hold NaN.
    rng = np.random.default_rng(0)
    boxes, scores, valid = [], [], []
    for count in (60, 40, 7):
        start, size = rng.integers(0, 8, (3, count, 2)), rng.integers(0, 6, (3, count, 2))
        boxes.append(np.concatenate([start, start + size], axis=-1).astype(np.float32))
        scores.append(-np.sort(-rng.integers(-5, 15, (3, count)) / 20).astype(np.float32))
        valid.append(rng.random((3, count)) < [[0.9], [0.5], [0.1]])
        boxes[-1][~valid[-1]] = np.nan
    valid[1][1] = False

    def run(form):
        settings = {"iou_threshold": 0.5, "max_outputs": max_outputs, "form": form}
        return jax.jit(lambda *images: map_images(partial(nms_levels, **settings), *images))(
            *jax.tree.map(jnp.asarray, (boxes, scores, valid))
        )

    (index, found), (expected, expected_found) = run("apart"), run("joint")
    assert expected_found.sum() > 40
    np.testing.assert_array_equal(found, expected_found)
    np.testing.assert_array_equal(index, expected)
