import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.data.objects import Objects
from mrcnn_jax.data.transform import ImageTransform, transform_objects
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.boxes import pairwise_iou
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training import targets
from mrcnn_jax.training.targets import AnchorTargets, positive_regions
from mrcnn_jax.types import GroundTruth, Proposals

KEY = jax.random.key(0)
POSITIVE, NEGATIVE, IGNORE = Assignment.POSITIVE, Assignment.NEGATIVE, Assignment.IGNORE
# samples enough for every candidate, so that nothing is left to chance
TAKE_ALL = TrainConfig(rpn_samples=16, roi_samples=16, rpn_positive_fraction=0.5, roi_positive_fraction=0.5)


def anchor_targets(anchors, gt):
    """The assignment and box of every anchor: ``TAKE_ALL`` leaves none out."""
    found = jax.device_get(_anchor_targets(anchors, gt))
    sampled = found.assignment != IGNORE
    index = found.index[sampled]
    assert len(set(index)) == len(index)
    assignment, boxes = np.full(len(anchors.boxes), IGNORE), np.zeros((len(anchors.boxes), 4))
    assignment[index], boxes[index] = found.assignment[sampled], found.boxes[sampled]
    return AnchorTargets(index=index, assignment=assignment, boxes=boxes)


def region_targets(proposals, gt):
    return jax.device_get(_region_targets(proposals, gt))


_anchor_targets = jax.jit(lambda anchors, gt: targets.anchor_targets(KEY, anchors, gt, TAKE_ALL))
_region_targets = jax.jit(lambda proposals, gt: targets.region_targets(KEY, proposals, gt, TAKE_ALL))


def _pad(rows, count):
    """``count`` rows, the last of which are not valid, so that all tests share a program."""
    rows = np.array(rows)
    return np.pad(rows, [(0, count - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _gt(boxes, labels=None, crowd=None, valid=None):
    count = len(boxes)
    return GroundTruth(
        boxes=_pad(np.array(boxes, np.float32), 2),
        labels=_pad(np.array(labels or [1] * count, np.int32), 2),
        crowd=_pad(crowd or [False] * count, 2),
        valid=_pad(valid or [True] * count, 2),
    )


def _anchors(boxes, in_image=None):
    return Anchors(_pad(np.array(boxes, np.float32), 4), _pad(in_image or [True] * len(boxes), 4))


def _proposals(boxes, valid=None):
    boxes, valid = _pad(np.array(boxes, np.float32), 3), _pad(valid or [True] * len(boxes), 3)
    return Proposals(boxes=boxes, scores=np.zeros(3, np.float32), valid=valid)


def test_anchors_by_hand():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 50, 50], [20, 20, 26, 26]], np.float32)
    found = anchor_targets(_anchors(anchors), _gt([[0, 0, 10, 10], [20, 20, 30, 30]]))
    # IoU 1; IoU .5 lies between; none; IoU .36, but the best that the second object has
    assert found.assignment.tolist() == [POSITIVE, IGNORE, NEGATIVE, POSITIVE]
    np.testing.assert_array_equal(found.boxes[[0, 3]], [[0, 0, 10, 10], [20, 20, 30, 30]])


def test_an_anchor_inside_a_crowd_is_no_negative_and_no_target():
    anchors = np.array([[2, 2, 8, 8], [60, 60, 70, 70]], np.float32)
    crowd = _gt([[0, 0, 40, 40]], crowd=[True])
    assert anchor_targets(_anchors(anchors), crowd).assignment.tolist() == [IGNORE, NEGATIVE, IGNORE, IGNORE]


def test_a_box_that_overlaps_a_crowd_as_no_negative_may_is_none():
    crowd = _gt([[0, 0, 40, 40]], crowd=[True])
    # a share of .67 inside the crowd, but an IoU of .67; then a share and an IoU of .17
    boxes = np.array([[0, 0, 40, 60], [0, 30, 40, 90]], np.float32)
    assert anchor_targets(_anchors(boxes), crowd).assignment.tolist() == [IGNORE, NEGATIVE, IGNORE, IGNORE]
    found = region_targets(_proposals(boxes), crowd)
    np.testing.assert_array_equal(found.boxes[0], boxes[1])
    assert found.assignment.tolist() == [NEGATIVE] + [IGNORE] * 15


def test_a_crowd_of_several_objects_counts_from_a_smaller_share():
    # A share of .4 inside the crowd, and an IoU of .25; of .2, and .11.
    boxes = np.array([[30, 0, 55, 40], [32, 0, 72, 40]], np.float32)
    for label, first in ((1, NEGATIVE), (0, IGNORE)):
        crowd = _gt([[0, 0, 40, 40]], labels=[label], crowd=[True])
        assert anchor_targets(_anchors(boxes), crowd).assignment[:2].tolist() == [first, NEGATIVE]


def test_objects_beyond_max_objects_never_become_background():
    """Random boxes around random objects, half of which have to share rows."""
    rng = np.random.default_rng(0)
    find = jax.jit(lambda boxes, gt, iou: targets.crowded(boxes, gt, iou, low=0.3, crowd_ioa=0.7))
    ignored = []
    for _ in range(10):
        corner, side = rng.uniform(0, 180, (40, 2)), rng.uniform(4, 20, (40, 2))
        objects = Objects(
            boxes=np.concatenate([corner, corner + side], axis=1).astype(np.float32),
            labels=np.ones(40, np.int32),
            crowd=np.zeros(40, bool),
            ids=np.arange(40),
            areas=np.ones(40, np.float32),
            masks=np.zeros((40, 0), np.uint8),
            keypoints=np.zeros((40, 0, 3), np.float32),
        )
        whole = ImageTransform((200, 200), (200, 200), top=0, left=0, size=(200, 200), flip=False)
        rows = transform_objects(
            objects, whole, max_objects=20, mask_grid=None, keypoints=False, flip_pairs=()
        )
        gt = GroundTruth(**rows)
        shifts = rng.uniform(-10, 10, (25, 40, 4))
        boxes = (objects.boxes + shifts).reshape(-1, 4)[:1000].astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        iou = np.asarray(pairwise_iou(*map(jnp.asarray, (boxes, objects.boxes))))
        dropped = ~(objects.boxes[:, None] == gt.boxes[~gt.crowd]).all(axis=2).any(axis=1)
        assert gt.valid.all() and dropped.sum() > 20
        found = np.asarray(find(boxes, gt, pairwise_iou(*map(jnp.asarray, (boxes, gt.boxes)))))
        assert found[(iou[:, dropped] >= 0.3).any(axis=1)].all()
        ignored.append(found.mean())
    assert 0.3 < np.mean(ignored) < 0.8  # some are no negatives, but not all


def test_anchors_beyond_the_image_are_not_learnt_from():
    anchors = _anchors([[80, 40, 90, 60], [92, 40, 102, 60]], in_image=[True, False])
    none = _gt([[0, 0, 0, 0]], valid=[False])
    assert anchor_targets(anchors, none).assignment.tolist() == [NEGATIVE] + [IGNORE] * 3


def test_an_object_inside_a_crowd_is_still_a_target():
    gt = _gt([[0, 0, 40, 40], [2, 2, 12, 12]], labels=[1, 2], crowd=[True, False])
    anchors = np.array([[2, 2, 12, 12]], np.float32)
    assert anchor_targets(_anchors(anchors), gt).assignment.tolist() == [POSITIVE] + [IGNORE] * 3


def test_a_batch_one_image_at_a_time_as_on_a_tpu_gives_the_same_anchors(monkeypatch):
    images = [
        (_anchors([[0, 0, 10, 10], [0, 0, 10, 8], [40, 40, 50, 50]]), _gt([[0, 0, 10, 10]])),
        (_anchors([[20, 0, 30, 10]], [False]), _gt([[20, 0, 30, 10], [0, 0, 9, 9]], crowd=[True, False])),
    ]
    anchors, gt = jax.tree.map(lambda *rows: jnp.stack(rows), *images)
    keys = jax.random.split(jax.random.key(0), 2)

    def find():
        one = functools.partial(targets.anchor_targets, config=TrainConfig(rpn_samples=4))
        return jax.jit(jax.vmap(one))(keys, anchors, gt)

    expected = find()
    monkeypatch.setattr(targets, "by_platform", lambda forms, *operands: forms["tpu"](*operands))
    jax.tree.map(np.testing.assert_array_equal, find(), expected)


def test_regions_by_hand():
    gt = _gt([[0, 0, 10, 10], [50, 50, 80, 80]], labels=[2, 3])
    proposals = _proposals([[0, 0, 10, 6], [20, 20, 30, 30], [0, 0, 10, 4]])
    found = region_targets(proposals, gt)
    # IoU .6, the two objects themselves, then IoU 0 and .4
    assert found.assignment[:5].tolist() == [POSITIVE] * 3 + [NEGATIVE] * 2
    assert found.labels[:5].tolist() == [2, 2, 3, 0, 0]
    assert found.gt_index[:3].tolist() == [0, 0, 1]
    assert set(found.assignment[5:].tolist()) == {IGNORE}
    np.testing.assert_array_equal(found.boxes[0], [0, 0, 10, 6])


def test_without_the_ground_truth_regions_are_proposals_alone():
    gt = _gt([[0, 0, 10, 10], [50, 50, 80, 80]], labels=[2, 3])
    proposals = _proposals([[0, 0, 10, 6], [20, 20, 30, 30], [0, 0, 10, 4]])
    config = dataclasses.replace(TAKE_ALL, roi_append_gt=False)
    take = jax.jit(lambda proposals, gt: targets.region_targets(KEY, proposals, gt, config))
    found = take(proposals, gt)
    assert found.assignment.tolist() == [POSITIVE, NEGATIVE, NEGATIVE] + [IGNORE] * 13
    np.testing.assert_array_equal(found.boxes[:3], proposals.boxes[:3])


def test_refined_regions_by_hand():
    """None is left out or added, but what has become empty, or is in a crowd, is ignored."""
    gt = _gt([[0, 0, 10, 10], [50, 50, 80, 80]], labels=[2, 3], crowd=[False, True])
    boxes = np.array([[0, 0, 10, 6], [0, 0, 10, 8], [60, 60, 70, 70], [0, 90, 20, 90], [0, 0, 10, 10]])
    valid = np.array([True, True, True, True, False])
    find = functools.partial(targets.refined_targets, iou=0.7, config=TAKE_ALL)
    found = jax.device_get(jax.jit(find)(boxes.astype(np.float32), valid, gt))
    assert found.assignment.tolist() == [NEGATIVE, POSITIVE, IGNORE, IGNORE, IGNORE]
    assert found.labels.tolist() == [0, 2, 0, 0, 0]
    np.testing.assert_array_equal(found.boxes, boxes)


def test_an_image_without_objects_gives_negatives_only():
    found = region_targets(_proposals([[0, 0, 10, 10]]), _gt([[0, 0, 0, 0]], valid=[False]))
    assert found.assignment.tolist() == [NEGATIVE] + [IGNORE] * 15


def test_a_crowd_does_not_join_the_proposals():
    found = region_targets(_proposals([[1, 1, 9, 9]]), _gt([[0, 0, 40, 40]], crowd=[True]))
    assert set(found.assignment.tolist()) == {IGNORE}
    # Nor does one that overlaps an object as a positive would.
    gt = _gt([[0, 0, 10, 10], [0, 0, 10, 12]], crowd=[False, True])
    found = region_targets(_proposals([[60, 60, 70, 70]]), gt)
    assert found.assignment.tolist() == [POSITIVE, NEGATIVE] + [IGNORE] * 14
    np.testing.assert_array_equal(found.boxes[0], gt.boxes[0])


@pytest.mark.parametrize("garbage", [[0, 0, 0, 0], [0, 0, 10, 10], [np.nan] * 4])
def test_what_invalid_rows_hold_changes_nothing(garbage):
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 50, 50]], np.float32)
    proposals = _proposals([[0, 0, 10, 6], garbage], valid=[True, False])
    plain = _gt([[0, 0, 10, 10], [0, 0, 0, 0]], labels=[2, 0], valid=[True, False])
    padded = _gt([[0, 0, 10, 10], garbage], labels=[2, 9], crowd=[False, True], valid=[True, False])
    for find in (
        lambda gt: anchor_targets(_anchors(anchors), gt),
        lambda gt: region_targets(proposals, gt),
    ):
        wanted, found = find(plain), find(padded)
        np.testing.assert_array_equal(wanted.assignment, found.assignment)
        sampled = wanted.assignment != IGNORE
        np.testing.assert_array_equal(wanted.boxes[sampled], found.boxes[sampled])


def test_positive_regions_are_the_first_rows():
    config = TrainConfig(roi_samples=8, roi_positive_fraction=0.25)

    @jax.jit
    def find(proposals, gt):
        return positive_regions(targets.region_targets(KEY, proposals, gt, config), config)

    proposals = _proposals([[60, 60, 70, 70], [0, 0, 10, 9]])
    found, positive = find(proposals, _gt([[0, 0, 10, 10]], labels=[3]))
    assert found.labels.tolist() == [3, 3]
    assert positive.tolist() == [True, True]
