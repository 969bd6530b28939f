import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn_jax.data.importers.regions import Bitmap, ellipse, polygon, rectangle, to_coco
from mrcnn_jax.rle import Rle

SIZE = (10, 20)
TRIANGLE = [[2, 1], [10, 1], [2, 5]]


def pixels(fields):
    return Rle.from_json(fields["segmentation"]).decode()


def test_a_polygon_that_leaves_the_image_counts_its_pixels():
    # Of the square from -2 to 3 the part 3 x 3 is inside; the polygon itself stays as it was drawn.
    fields = to_coco([polygon([[-2, -2], [3, -2], [3, 3], [-2, 3]])], SIZE)
    assert (fields["bbox"], fields["area"]) == ([0, 0, 3, 3], 9)
    assert fields["segmentation"] == [[-2, -2, 3, -2, 3, 3, -2, 3]]


def test_a_polygon_that_crosses_itself_has_an_area():
    # Two triangles of 4 square pixels each, drawn in opposite directions.
    assert to_coco([polygon([[0, 0], [4, 4], [4, 0], [0, 4]])], SIZE)["area"] == 8


def test_rectangles_extend_the_box_only():
    fields = to_coco([polygon(TRIANGLE), rectangle([[12, 8], [11, 3]])], SIZE)
    assert fields["bbox"] == [2, 1, 10, 7] and fields["segmentation"] == [[2, 1, 10, 1, 2, 5]]


def test_bitmaps_and_polygons_are_joined():
    bitmap = Bitmap(np.array([[False, False], [False, True]]), top=8, left=18)
    fields = to_coco([polygon([[1, 1], [3, 1], [3, 4], [1, 4]]), bitmap], SIZE)
    expected = np.zeros(SIZE, bool)
    expected[1:4, 1:3] = expected[9, 19] = True
    assert (pixels(fields) == expected).all()
    assert (fields["bbox"], fields["area"]) == ([1, 1, 19, 9], 7)


def test_a_circle_at_the_edge_is_clipped():
    fields = to_coco([ellipse(0, 0, 2, 2, size=SIZE)], SIZE)
    expected = np.zeros(SIZE, bool)
    expected[:2, :2] = [[True, True], [True, False]]  # (1.5, 1.5) is 2.12 from the centre
    assert (pixels(fields) == expected).all() and fields["bbox"] == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ellipse(30, 5, 2, 2, size=SIZE),
            "no pixel of the image lies in the circle or ellipse around 30 5",
        ),
        (lambda: ellipse(5.0, 5.0, 0.1, 0.1, size=SIZE), "no pixel of the image lies in"),
        (lambda: ellipse(5, 5, -1, 2, size=SIZE), "must be positive, got -1 and 2"),
        (
            lambda: to_coco([Bitmap(np.zeros((2, 2), bool), 0, 0)], SIZE),
            "a mask must have at least one pixel",
        ),
        (lambda: to_coco([rectangle([[20, 1], [30, 5]])], SIZE), "lies outside the image of 20 x 10 pixels"),
        (lambda: polygon([[1, 1], [1, 1], [3, 3]]), "the 3 points of a polygon must not lie on one line"),
    ],
)
def test_regions_without_pixels(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(st.integers(0, 2**32 - 1))
def test_joined_bitmaps_are_the_union_of_their_pixels(seed):
    rng = np.random.default_rng(seed)
    expected, parts = np.zeros(SIZE, bool), []
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(1, 11), rng.integers(1, 21)
        top, left = rng.integers(0, 11 - height), rng.integers(0, 21 - width)
        crop = rng.random((height, width)) < 0.3
        crop[rng.integers(height), rng.integers(width)] = True
        expected[top : top + height, left : left + width] |= crop
        parts.append(Bitmap(crop, top=int(top), left=int(left)))
    fields = to_coco(parts, SIZE)
    assert (pixels(fields) == expected).all() and fields["area"] == expected.sum()
    x, y, width, height = map(int, fields["bbox"])
    inside = expected[y : y + height, x : x + width]
    assert inside.sum() == expected.sum()
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
