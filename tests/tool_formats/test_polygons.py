import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.tool_formats.polygons import has_holes, joined, outlines
from tests.tool_formats.examples import disc, iou


def fill(polygons, shape):
    """The pixels inside by the even-odd rule over all polygons."""
    pixels = np.zeros(shape, bool)
    for polygon in polygons:
        pixels ^= pixels_of((polygon.astype(float),), 0, 0, *shape)
    return pixels


def test_joined_by_hand():
    parts = [np.array([[x, 0], [x + 1, 0], [x + 1, 1], [x, 1]]) for x in (0, 3)]
    assert joined(parts).tolist() == [
        [0, 0], [1, 0], [3, 0], [4, 0], [4, 1], [3, 1], [3, 0], [1, 0], [1, 1], [0, 1],
    ]  # fmt: skip
    assert joined(parts[:1]).tolist() == parts[0].tolist()


def test_a_staircase_becomes_a_line():
    rows, columns = np.mgrid[:20, :20]
    (exact,) = outlines(PastedMask(top=5, left=3, mask=columns <= rows), 0)
    (polygon,) = outlines(PastedMask(top=5, left=3, mask=columns <= rows), 0.75)
    assert len(exact) == 42 and len(polygon) <= 5
    assert polygon.min(axis=0).tolist() == [3, 5] and polygon.max(axis=0).tolist() == [23, 25]


@pytest.mark.parametrize(("radius", "corners", "bound"), [(5, 12, 0.95), (20, 40, 0.98), (100, 200, 0.99)])
def test_few_corners_close_to_the_mask(radius, corners, bound):
    mask = disc(radius, radius, radius, (2 * radius, 2 * radius))
    (polygon,) = outlines(PastedMask(top=0, left=0, mask=mask), 0.75)
    assert len(polygon) <= corners
    assert iou(fill([polygon], mask.shape), mask) >= bound


bitmaps = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)).filter(np.any)


@settings(max_examples=100, deadline=None)
@given(bitmaps)
def test_joined_outlines_fill_exactly_the_mask(mask):
    polygons = outlines(PastedMask(top=0, left=0, mask=mask), 0)
    np.testing.assert_array_equal(fill([joined(polygons)], mask.shape), mask)
    assert len(joined(polygons)) == sum(map(len, polygons)) + 2 * (len(polygons) - 1)


def test_the_closest_corners_are_joined():
    """As by a search of all pairs for every part; of equally close corners the first."""
    mask = np.random.default_rng(0).random((12, 14)) < 0.5
    polygons = outlines(PastedMask(top=0, left=0, mask=mask), 0)
    corners = np.concatenate(polygons)
    owners = np.repeat(np.arange(len(polygons)), list(map(len, polygons)))
    ring, order = [*np.flatnonzero(owners == 0)], [*np.flatnonzero(owners == 0)]
    while len(order) < len(corners):
        outside = [corner for corner in range(len(corners)) if corner not in order]
        gaps = ((corners[outside][:, None] - corners[order]) ** 2).sum(axis=2)
        there, place = np.unravel_index(np.argmin(gaps), gaps.shape)
        part = np.flatnonzero(owners == owners[outside[there]])
        part = np.roll(part, part[0] - outside[there])
        here = ring.index(order[place])
        ring[here : here + 1] = [ring[here], *part, part[0], ring[here]]
        order += [*part]
    np.testing.assert_array_equal(joined(polygons), corners[ring])


@settings(max_examples=100, deadline=None)
@given(bitmaps)
def test_simplified_outlines_keep_their_parts_and_turn(mask):
    crop = PastedMask(top=0, left=0, mask=mask)
    exact, simplified = outlines(crop, 0), outlines(crop, 0.75)
    assert len(exact) == len(simplified) and has_holes(exact) == has_holes(simplified)
    for ours, theirs in zip(simplified, exact, strict=True):
        assert 3 <= len(ours) <= len(theirs)
        assert set(map(tuple, ours.tolist())) <= set(map(tuple, theirs.tolist()))
