import numpy as np
import pytest

from mrcnn_jax.data.overfull import fit_rows, union

FIVE = np.array([[0, 0, 9, 9], [0, 20, 8, 28], [40, 0, 46, 6], [50, 2, 55, 7], [0, 40, 4, 44]], float)


def lists(found):
    targets, groups = found
    return targets.tolist(), [sorted(group.tolist()) for group in groups]


def test_union_by_hand():
    assert union(FIVE[2:4]).tolist() == [40, 0, 55, 7]
    assert union(FIVE[:1]).tolist() == FIVE[0].tolist()


def test_by_hand():
    none = np.zeros(5, bool)
    assert lists(fit_rows(FIVE, none, 4)) == ([0, 1, 2], [[3, 4]])
    assert lists(fit_rows(FIVE, none, 2)) == ([0], [[1, 2, 3, 4]])
    assert lists(fit_rows(FIVE, none, 1)) == ([], [[0, 1, 2, 3, 4]])
    # Two crowds have two of the four rows, and one is for what is dropped; neighbours share a row.
    crowd = np.array([True, True, False, False, False])
    assert lists(fit_rows(FIVE, crowd, 4)) == ([2], [[3], [4], [0, 1]])


def test_more_rows_are_given_up_the_more_objects_there_are():
    counts = {}
    for count in (101, 105, 115, 125, 400):
        targets, groups = fit_rows(np.tile(FIVE, (80, 1))[:count], np.zeros(count, bool), 100)
        counts[count] = len(targets), len(groups)
    assert counts == {101: (90, 10), 105: (90, 10), 115: (85, 15), 125: (75, 25), 400: (75, 25)}


@pytest.mark.parametrize("max_objects", [1, 2, 5, 20, 99])
@pytest.mark.parametrize("crowds", [0, 3, 80, 100])
def test_every_object_has_a_row_and_no_row_is_unused(max_objects, crowds):
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 5, (100, 2)).astype(float)  # many are equal
    boxes = np.concatenate([corner, corner + rng.integers(1, 4, (100, 2))], axis=1)
    targets, groups = fit_rows(boxes, np.arange(100) < crowds, max_objects)
    assert len(targets) + len(groups) == max_objects
    assert sorted([*targets.tolist(), *np.concatenate(groups).tolist()]) == list(range(100))
    assert targets.tolist() == list(range(crowds, crowds + len(targets)))
    assert len(targets) >= min(100 - crowds, max_objects // 4 - 1)


def test_groups_are_of_neighbours():
    """Four clusters of 30 small objects each, of which 4 rows are left: one for each cluster."""
    rng = np.random.default_rng(0)
    centre = np.array([(0, 0), (500, 0), (0, 500), (500, 500)], float).repeat(30, axis=0)
    corner = rng.permutation(centre + rng.uniform(0, 40, (120, 2)))
    boxes = np.concatenate([corner, corner + 5], axis=1)
    targets, groups = fit_rows(boxes, np.zeros(120, bool), 16)
    assert len(targets) == 12 and len(groups) == 4
    assert all((union(boxes[group])[2:] - union(boxes[group])[:2]).max() <= 45 for group in groups)
