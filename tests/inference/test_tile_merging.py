"""Finds of tiles, and the objects that they are joined to."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.inference.tile_merging import Tile, merge_tiles, tiles_of
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories((1, 7), ("house", "person"), (2,), ("head",))


def result_of(objects, size, *, masks=True):
    """The result of an image of ``size`` with ``objects``: label, score and mask ``[H W]`` of each."""
    crops, boxes = [], []
    for _, _, mask in objects:
        (top, bottom), (left, right) = (
            (found[0], found[-1] + 1) for found in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        )
        crops.append(PastedMask(int(top), int(left), mask[top:bottom, left:right]))
        boxes.append([left, top, right, bottom])
    return Result(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in objects], np.float32),
        labels=np.array([label for label, _, _ in objects], np.int64),
        image_size=size,
        categories=CATEGORIES,
        crops=tuple(crops) if masks else None,
    )


def cut(objects, tile):
    """What a perfect detector finds of ``objects`` in a tile."""
    rows, columns = slice(tile.top, tile.top + tile.height), slice(tile.left, tile.left + tile.width)
    seen = [(label, score, mask[rows, columns]) for label, score, mask in objects]
    return result_of([each for each in seen if each[2].any()], (tile.height, tile.width))


def merge(objects, size, *, tile, overlap):
    return merge_tiles(
        [(each, cut(objects, each)) for each in tiles_of(size, tile=tile, overlap=overlap)], size
    )


def rectangle(size, box, label=1, score=0.9):
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return label, score, mask


def assert_same(found, wanted):
    assert found.boxes.tolist() == wanted.boxes.tolist()
    assert found.labels.tolist() == wanted.labels.tolist()
    assert found.image_size == wanted.image_size
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.masks, wanted.masks)


def test_tiles_by_hand():
    assert tiles_of((100, 250), tile=100, overlap=20) == [
        Tile(0, 0, 100, 100),
        Tile(0, 80, 100, 100),
        Tile(0, 150, 100, 100),
    ]
    assert tiles_of((60, 100), tile=100, overlap=20) == [Tile(0, 0, 60, 100)]
    assert [tile[:2] for tile in tiles_of((101, 90), tile=100, overlap=50)] == [(0, 0), (1, 0)]
    for overlap in (-1, 51):
        with pytest.raises(ValueError, match=rf"overlap is {overlap}; it must be from 0 to half the tile"):
            tiles_of((1, 1), tile=100, overlap=overlap)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    tile=st.integers(16, 100),
    share=st.floats(0, 0.5),
)
def test_tiles_cover_the_image_and_overlap(size, tile, share):
    overlap = int(tile * share)
    tiles = tiles_of(size, tile=tile, overlap=overlap)
    covered = np.zeros(size, bool)
    for top, left, height, width in tiles:
        assert top + height <= size[0] and left + width <= size[1]
        covered[top : top + height, left : left + width] = True
    assert covered.all()
    rows, columns = (sorted({tile[axis] for tile in tiles}) for axis in (0, 1))
    for starts in (rows, columns):
        assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_an_object_in_an_overlap_is_found_once():
    size = 100, 180
    objects = [rectangle(size, (85, 40, 96, 50), score=0.8)]
    found = [(tile, cut(objects, tile)) for tile in tiles_of(size, tile=100, overlap=20)]
    assert [len(result) for _, result in found] == [1, 1]
    better = replace(found[1][1], scores=np.array([0.85], np.float32))
    merged = merge_tiles([found[0], (found[1][0], better)], size)
    assert len(merged) == 1 and merged.scores[0] == np.float32(0.85)


def test_pieces_of_a_large_object_are_joined_and_others_stay_apart():
    size = 100, 260
    objects = [rectangle(size, (30, 20, 240, 60)), rectangle(size, (30, 62, 240, 90), score=0.7)]
    merged = merge(objects, size, tile=100, overlap=20)
    assert_same(merged, result_of(objects, size))


def test_pieces_need_the_same_category_and_half_of_the_smaller_one():
    size = 100, 180
    left, right = tiles_of(size, tile=100, overlap=20)
    found = cut([rectangle(size, (30, 20, 100, 60))], left)

    def count(box, label):
        return len(merge_tiles([(left, found), (right, cut([rectangle(size, box, label)], right))], size))

    assert count((80, 20, 150, 60), 1) == 1
    assert count((80, 20, 150, 60), 2) == 2
    assert count((80, 40, 150, 80), 1) == 1
    assert count((80, 41, 150, 81), 1) == 2


def test_a_piece_that_another_tile_sees_whole_but_does_not_find_is_dropped():
    size = 100, 180
    left, right = tiles_of(size, tile=100, overlap=20)
    sliver = cut([rectangle(size, (80, 20, 90, 60))], right)
    nothing = result_of([], (100, 100))
    assert len(merge_tiles([(left, nothing), (right, sliver)], size)) == 0
    # The left tile's border cuts this one off, too: neither sees more of it.
    wide = cut([rectangle(size, (80, 20, 100, 60))], right)
    assert len(merge_tiles([(left, nothing), (right, wide)], size)) == 1


def test_two_whole_objects_of_a_tile_that_a_piece_joins_stay_two():
    size = 100, 180
    left, right = tiles_of(size, tile=100, overlap=20)
    objects = [rectangle(size, (60, 20, 95, 40)), rectangle(size, (60, 40, 95, 60), score=0.8)]
    both = cut([rectangle(size, (80, 20, 95, 60))], right)
    merged = merge_tiles([(left, cut(objects, left)), (right, both)], size)
    assert_same(merged, result_of(objects, size))


def test_boxes_decide_without_masks():
    size = 100, 260
    objects = [rectangle(size, (30, 20, 240, 60)), rectangle(size, (85, 70, 96, 80), score=0.5)]
    tiles = tiles_of(size, tile=100, overlap=20)
    found = [(tile, replace(cut(objects, tile), crops=None)) for tile in tiles]
    merged = merge_tiles(found, size)
    assert merged.crops is None and merged.boxes.tolist() == result_of(objects, size).boxes.tolist()


def test_keypoints_move_with_their_tile_and_only_where_there_are_any():
    size = 100, 180
    left, right = tiles_of(size, tile=100, overlap=20)
    objects = [rectangle(size, (120, 20, 140, 60), 2), rectangle(size, (150, 20, 160, 60), 1, 0.5)]
    points = np.array([[[41.5, 30, 2]], [[0, 0, 0]]], np.float32)
    found = replace(cut(objects, right), keypoints=points)
    nothing = replace(result_of([], (100, 100)), keypoints=np.zeros((0, 1, 3), np.float32))
    merged = merge_tiles([(left, nothing), (right, found)], size)
    assert merged.keypoints.tolist() == [[[121.5, 30, 2]], [[0, 0, 0]]]


@st.composite
def scenes(draw):
    """Disjoint ellipses and rings of two categories on a picture, from slivers to larger than a tile."""
    size = draw(st.tuples(st.integers(70, 220), st.integers(70, 220)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y, x = np.mgrid[: size[0], : size[1]]
    free, objects = np.ones(size, bool), []
    for number in range(draw(st.integers(0, 9))):
        centre, radius = rng.uniform((0, 0), size), rng.uniform(1, 90, 2)
        distance = np.hypot((y - centre[0]) / radius[0], (x - centre[1]) / radius[1])
        mask = (distance <= 1) & (distance >= rng.choice([0, 0.7]))
        if mask.any() and free[mask].all():
            free &= ~mask
            objects.append((int(rng.integers(1, 3)), 0.9 - 0.05 * number, mask))
    return size, objects


@settings(max_examples=60, derandomize=True, deadline=None)
@given(scene=scenes())
def test_a_picture_cut_into_tiles_gives_what_the_whole_gives(scene):
    size, objects = scene
    assert_same(merge(objects, size, tile=64, overlap=24), result_of(objects, size))
