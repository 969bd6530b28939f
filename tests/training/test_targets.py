import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training.targets import anchor_targets, positive_regions, region_targets
from mrcnn_jax.types import GroundTruth, Proposals

KEY = jax.random.key(0)
POSITIVE, NEGATIVE, IGNORE = Assignment.POSITIVE, Assignment.NEGATIVE, Assignment.IGNORE
# samples enough for every candidate, so that nothing is left to chance
TAKE_ALL = TrainConfig(rpn_samples=16, roi_samples=16, rpn_positive_fraction=0.5, roi_positive_fraction=0.5)


def _gt(boxes, labels=None, crowd=None, valid=None):
    count = len(boxes)
    return GroundTruth(
        boxes=jnp.array(boxes, jnp.float32).reshape(count, 4),
        labels=jnp.array(labels or [1] * count, jnp.int32),
        crowd=jnp.array(crowd or [False] * count, bool),
        valid=jnp.array(valid or [True] * count, bool),
    )


def _anchors(boxes, in_image=None):
    boxes = jnp.array(boxes, jnp.float32)
    return Anchors(boxes, jnp.ones(len(boxes), bool) if in_image is None else jnp.array(in_image))


def _proposals(boxes, valid=None):
    boxes = jnp.array(boxes, jnp.float32)
    valid = jnp.ones(len(boxes), bool) if valid is None else jnp.array(valid)
    return Proposals(boxes=boxes, scores=jnp.zeros(len(boxes)), valid=valid)


def test_anchors_by_hand():
    anchors = jnp.array([[0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 50, 50], [20, 20, 26, 26]], jnp.float32)
    targets = anchor_targets(KEY, _anchors(anchors), _gt([[0, 0, 10, 10], [20, 20, 30, 30]]), TAKE_ALL)
    # IoU 1; IoU .5 lies between; none; IoU .36, but the best that the second object has
    assert targets.assignment.tolist() == [POSITIVE, IGNORE, NEGATIVE, POSITIVE]
    np.testing.assert_array_equal(targets.boxes[jnp.array([0, 3])], [[0, 0, 10, 10], [20, 20, 30, 30]])


def test_an_anchor_inside_a_crowd_is_no_negative_and_no_target():
    anchors = jnp.array([[2, 2, 8, 8], [60, 60, 70, 70]], jnp.float32)
    crowd = _gt([[0, 0, 40, 40]], crowd=[True])
    assert anchor_targets(KEY, _anchors(anchors), crowd, TAKE_ALL).assignment.tolist() == [IGNORE, NEGATIVE]


def test_a_box_that_overlaps_a_crowd_as_no_negative_may_is_none():
    crowd = _gt([[0, 0, 40, 40]], crowd=[True])
    # a share of .67 inside the crowd, but an IoU of .67; then a share and an IoU of .17
    boxes = jnp.array([[0, 0, 40, 60], [0, 30, 40, 90]], jnp.float32)
    assert anchor_targets(KEY, _anchors(boxes), crowd, TAKE_ALL).assignment.tolist() == [IGNORE, NEGATIVE]
    targets = region_targets(KEY, _proposals(boxes), crowd, TAKE_ALL)
    np.testing.assert_array_equal(targets.boxes[0], boxes[1])
    assert targets.assignment.tolist() == [NEGATIVE] + [IGNORE] * 15


def test_anchors_beyond_the_image_are_not_learnt_from():
    anchors = _anchors([[80, 40, 90, 60], [92, 40, 102, 60]], in_image=[True, False])
    none = _gt([[0, 0, 0, 0]], valid=[False])
    assert anchor_targets(KEY, anchors, none, TAKE_ALL).assignment.tolist() == [NEGATIVE, IGNORE]


def test_an_object_inside_a_crowd_is_still_a_target():
    gt = _gt([[0, 0, 40, 40], [2, 2, 12, 12]], labels=[1, 2], crowd=[True, False])
    anchors = jnp.array([[2, 2, 12, 12]], jnp.float32)
    assert anchor_targets(KEY, _anchors(anchors), gt, TAKE_ALL).assignment.tolist() == [POSITIVE]


def test_regions_by_hand():
    gt = _gt([[0, 0, 10, 10], [50, 50, 80, 80]], labels=[2, 3])
    proposals = _proposals([[0, 0, 10, 6], [20, 20, 30, 30], [0, 0, 10, 4]])
    targets = region_targets(KEY, proposals, gt, TAKE_ALL)
    # IoU .6, the two objects themselves, then IoU 0 and .4
    assert targets.assignment[:5].tolist() == [POSITIVE] * 3 + [NEGATIVE] * 2
    assert targets.labels[:5].tolist() == [2, 2, 3, 0, 0]
    assert targets.gt_index[:3].tolist() == [0, 0, 1]
    assert set(targets.assignment[5:].tolist()) == {IGNORE}
    np.testing.assert_array_equal(targets.boxes[0], [0, 0, 10, 6])


def test_an_image_without_objects_gives_negatives_only():
    targets = region_targets(KEY, _proposals([[0, 0, 10, 10]]), _gt([[0, 0, 0, 0]], valid=[False]), TAKE_ALL)
    assert targets.assignment.tolist() == [NEGATIVE] + [IGNORE] * 15


def test_a_crowd_does_not_join_the_proposals():
    targets = region_targets(KEY, _proposals([[1, 1, 9, 9]]), _gt([[0, 0, 40, 40]], crowd=[True]), TAKE_ALL)
    assert set(targets.assignment.tolist()) == {IGNORE}


@pytest.mark.parametrize("garbage", [[0, 0, 0, 0], [0, 0, 10, 10], [np.nan] * 4])
def test_what_invalid_rows_hold_changes_nothing(garbage):
    anchors = jnp.array([[0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 50, 50]], jnp.float32)
    proposals = _proposals([[0, 0, 10, 6], garbage], valid=[True, False])
    plain = _gt([[0, 0, 10, 10], [0, 0, 0, 0]], labels=[2, 0], valid=[True, False])
    padded = _gt([[0, 0, 10, 10], garbage], labels=[2, 9], crowd=[False, True], valid=[True, False])
    for targets in (
        lambda gt: anchor_targets(KEY, _anchors(anchors), gt, TAKE_ALL),
        lambda gt: region_targets(KEY, proposals, gt, TAKE_ALL),
    ):
        wanted, found = targets(plain), targets(padded)
        np.testing.assert_array_equal(wanted.assignment, found.assignment)
        sampled = wanted.assignment != IGNORE
        np.testing.assert_array_equal(wanted.boxes[sampled], found.boxes[sampled])


def test_positive_regions_are_the_first_rows():
    proposals = _proposals([[60, 60, 70, 70], [0, 0, 10, 9]])
    config = TrainConfig(roi_samples=8, roi_positive_fraction=0.25)
    targets, positive = positive_regions(
        region_targets(KEY, proposals, _gt([[0, 0, 10, 10]], labels=[3]), config), config
    )
    assert targets.labels.tolist() == [3, 3]
    assert positive.tolist() == [True, True]
