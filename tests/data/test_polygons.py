import numpy as np

from mrcnn_jax.data.polygons import clip_polygons
from mrcnn_jax.data.rasterise import pixels_of


def points(*values):
    return np.array(values, np.float64).reshape(-1, 2)


def test_a_square_over_the_corner_by_hand():
    (part,) = clip_polygons((points(-2, -2, 3, -2, 3, 4, -2, 4),), (10, 10))
    assert {tuple(point) for point in part.tolist()} == {(0, 0), (3, 0), (3, 4), (0, 4)}


def test_a_polygon_inside_is_the_same_and_one_outside_is_gone():
    inside, outside = points(0, 0, 10, 0, 10, 5), points(11, 0, 20, 0, 20, 5)
    parts = clip_polygons((inside, outside), (5, 10))
    assert len(parts) == 1 and parts[0] is inside


def test_a_c_falls_into_its_two_arms():
    """Its back is left of the image. What is left of the arms must have no bridge along the edge."""
    letter = points(-3, 1, 4, 1, 4, 2, -2, 2, -2, 8, 4, 8, 4, 9, -3, 9)
    arms = clip_polygons((letter,), (10, 10))
    assert sorted((*arm.min(axis=0), *arm.max(axis=0)) for arm in arms) == [(0, 1, 4, 2), (0, 8, 4, 9)]
    # Of the lower part of the image alone, a bridge would have left the box of the lower arm too high.
    (arm,) = clip_polygons((letter - (0, 5),), (5, 10))
    assert (*arm.min(axis=0), *arm.max(axis=0)) == (0, 3, 4, 4)


def test_a_polygon_that_touches_from_outside_is_gone():
    assert clip_polygons((points(-4, 0, 0, 2, -4, 4), points(0, -3, 5, -3, 5, 0)), (10, 10)) == ()


def test_vertices_on_the_edge():
    (part,) = clip_polygons((points(0, 5, 5, 0, 0, -5, -5, 0),), (10, 10))
    assert (*part.min(axis=0), *part.max(axis=0)) == (0, 0, 5, 5)


def test_the_pixels_are_those_of_the_whole_polygon():
    """Also of polygons that cross themselves: inside and outside alternate."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        polygon = rng.uniform(-10, 30, (rng.integers(3, 14), 2))
        wanted, found = pixels_of((polygon,), 0, 0, 18, 20), np.zeros((18, 20), bool)
        for part in clip_polygons((polygon,), (18, 20)):
            assert (part >= 0).all() and (part <= (20, 18)).all()
            found ^= pixels_of((part,), 0, 0, 18, 20)
        np.testing.assert_array_equal(found, wanted)
