import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import matching
from mrcnn_jax.ops.matching import Assignment

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
match = jax.jit(matching.match, static_argnames=("low", "high", "keep_best"))
sample = jax.jit(matching.sample, static_argnames=("count", "positive_fraction"))
take_sampled = jax.jit(matching.take_sampled, static_argnames="count")

IGNORE, NEGATIVE, POSITIVE = Assignment.IGNORE, Assignment.NEGATIVE, Assignment.POSITIVE

IOU = jnp.array(
    [
        [0.8, 0.1],  # above the upper threshold
        [0.7, 0.0],  # equal to the upper threshold: positive
        [0.5, 0.2],  # between the thresholds
        [0.3, 0.0],  # equal to the lower threshold: ignored
        [0.1, 0.25],  # tied for the best of the second
        [0.29, 0.25],  # tied for the best of the second, but overlaps the first more
        [0.0, 0.0],
    ]
)


def test_thresholds_by_hand():
    index, assignment = match(IOU, jnp.array([True, True]), low=0.3, high=0.7, keep_best=False)
    np.testing.assert_array_equal(index, [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(
        assignment, [POSITIVE, POSITIVE, IGNORE, IGNORE, NEGATIVE, NEGATIVE, NEGATIVE]
    )


def test_the_best_anchors_of_a_ground_truth_are_kept_with_their_own_index():
    index, assignment = match(IOU, jnp.array([True, True]), low=0.3, high=0.7, keep_best=True)
    np.testing.assert_array_equal(assignment[4:], [POSITIVE, POSITIVE, NEGATIVE])
    np.testing.assert_array_equal(index[4:6], [1, 0])


@pytest.mark.parametrize("keep_best", [False, True])
def test_padding_does_not_change_the_result(keep_best):
    padded = jnp.concatenate([IOU, jnp.array([[1.0, np.nan]] * 7)], axis=1)
    valid = jnp.array([True, True, False, False])
    for ours, expected in zip(
        match(padded, valid, low=0.3, high=0.7, keep_best=keep_best),
        match(IOU, valid[:2], low=0.3, high=0.7, keep_best=keep_best),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, expected)


def test_without_ground_truth_all_anchors_are_negative():
    index, assignment = match(IOU, jnp.array([False, False]), low=0.3, high=0.7, keep_best=True)
    assert (np.asarray(assignment) == NEGATIVE).all()
    assert (np.asarray(index) == 0).all()


def test_a_ground_truth_that_overlaps_no_anchor_keeps_none():
    iou = jnp.zeros((5, 2)).at[0, 0].set(0.5)
    _, assignment = match(iou, jnp.array([True, True]), low=0.3, high=0.7, keep_best=True)
    np.testing.assert_array_equal(assignment, [POSITIVE] + [NEGATIVE] * 4)


@pytest.mark.parametrize("keep_best", [False, True])
def test_match_equals_torchvision(keep_best):
    iou = jnp.asarray(REFERENCE["matching/iou"])
    index, assignment = match(iou, jnp.ones(iou.shape[1], bool), low=0.3, high=0.7, keep_best=keep_best)
    ours = np.select([assignment == POSITIVE, assignment == NEGATIVE], [index, -1], -2)
    np.testing.assert_array_equal(ours, REFERENCE[f"matching/matches_keep_best{int(keep_best)}"])


def counts(assignment):
    return np.bincount(np.asarray(assignment), minlength=3).tolist()


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(50, 100, (8, 24)), (3, 100, (3, 29)), (0, 100, (0, 32)), (50, 10, (8, 10)), (0, 0, (0, 0))],
)
def test_sample_counts(positives, negatives, expected):
    ignored = 200 - positives - negatives
    assignment = jnp.array([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORE] * ignored)
    sampled = sample(jax.random.key(0), assignment, count=32, positive_fraction=0.25)
    assert counts(sampled) == [200 - sum(expected), expected[1], expected[0]]
    kept = np.asarray(sampled) != IGNORE
    np.testing.assert_array_equal(sampled[kept], assignment[kept])


def test_sampling_more_than_available_keeps_all_negatives():
    assignment = jnp.array([NEGATIVE, POSITIVE, IGNORE])
    np.testing.assert_array_equal(
        sample(jax.random.key(0), assignment, count=8, positive_fraction=0.5), assignment
    )


def test_every_row_is_sampled_with_equal_probability():
    assignment = jnp.array([POSITIVE] * 10 + [NEGATIVE] * 30)
    draw = jax.vmap(lambda key: sample(key, assignment, count=10, positive_fraction=0.5) != IGNORE)
    share = np.asarray(draw(jax.random.split(jax.random.key(0), 2000))).mean(axis=0)
    np.testing.assert_allclose(share, [5 / 10] * 10 + [5 / 30] * 30, atol=0.05)


def test_take_sampled_orders_positive_negative_padding():
    assignment = jnp.array([IGNORE, NEGATIVE, POSITIVE, NEGATIVE, IGNORE, POSITIVE])
    index, kind = take_sampled(assignment, count=5)
    np.testing.assert_array_equal(index[:4], [2, 5, 1, 3])
    np.testing.assert_array_equal(kind, [POSITIVE, POSITIVE, NEGATIVE, NEGATIVE, IGNORE])
    np.testing.assert_array_equal(assignment[index], kind)


def test_take_sampled_pads_to_the_count():
    index, kind = take_sampled(jnp.array([NEGATIVE, POSITIVE]), count=4)
    np.testing.assert_array_equal(index, [1, 0, 0, 0])
    np.testing.assert_array_equal(kind, [POSITIVE, NEGATIVE, IGNORE, IGNORE])
