import dataclasses

import numpy as np
import pytest

from mrcnn_jax.inference.draw import COLORS, draw
from mrcnn_jax.inference.label_layout import place_labels
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.runs.categories import Categories


def make(categories: Categories, image_size: tuple[int, int], boxes: list[list[float]]) -> Result:
    """Figures whose masks fill their boxes, with the head at the top left and one foot outside the image."""
    edges = np.array(boxes, np.float32).reshape(-1, 4)
    keypoints = np.zeros((len(boxes), 3, 3), np.float32)
    keypoints[:, 0, :2] = edges[:, :2]
    keypoints[:, 1, :2] = edges[:, 2:]
    keypoints[:, 2, :2] = edges[:, 2:] + 1000
    return Result(
        boxes=edges,
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        labels=np.full(len(boxes), 2, np.int32),
        image_size=image_size,
        categories=categories,
        crops=tuple(paste_mask(np.ones((28, 28), np.float32), box, image_size) for box in edges),
        keypoints=keypoints,
    )


def test_mask_box_and_rest_of_the_picture(categories: Categories) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    result = make(categories, (480, 640), [[100, 200, 300, 400]])
    picture = draw(image, dataclasses.replace(result, keypoints=None))
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert picture[200:400, 100].tolist() == [list(COLORS[0])] * 200  # the box's left edge
    np.testing.assert_allclose(picture[300, 200], 0.4 * np.array(COLORS[0]), atol=1)  # the translucent mask
    assert not picture[405:].any() and not picture[:, 305:].any() and not picture[:180].any()
    assert not image.any()


def test_skeleton_of_categories_with_keypoints_only(categories: Categories) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    figure = make(categories, (480, 640), [[100, 200, 300, 400]])
    ball = dataclasses.replace(figure, labels=np.ones(1, np.int32))
    assert draw(image, figure)[300, 200].tolist() == list(COLORS[0])  # on the bone from head to foot
    assert draw(image, ball)[300, 200].tolist() != list(COLORS[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_keypoint_that_is_not_finite_is_left_out(categories: Categories, value: float) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    result = make(categories, (480, 640), [[100, 200, 300, 400]])
    assert result.keypoints is not None
    result.keypoints[0, 1:] = value
    assert draw(image, result)[300, 200].tolist() != list(COLORS[0])
    result.keypoints[:] = value
    draw(image, result)


def test_without_objects_the_image_is_unchanged(categories: Categories) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    nothing = make(categories, (480, 640), [[100, 200, 300, 400]]).above(0.95)
    assert len(nothing) == 0
    np.testing.assert_array_equal(draw(image, nothing), image)
    without = dataclasses.replace(nothing, crops=None, keypoints=None)
    np.testing.assert_array_equal(draw(image, without), image)


def test_small_image_is_enlarged_by_an_integer_factor(categories: Categories) -> None:
    assert draw(np.zeros((96, 128, 3), np.uint8), make(categories, (96, 128), [])).shape == (480, 640, 3)
    assert draw(np.zeros((96, 127, 3), np.uint8), make(categories, (96, 127), [])).shape == (576, 762, 3)
    assert draw(np.zeros((10, 640, 3), np.uint8), make(categories, (10, 640), [])).shape == (10, 640, 3)


@pytest.mark.parametrize("size", [(1, 1), (5000, 50), (50, 5000), (700, 3)])
def test_extreme_shapes(categories: Categories, size: tuple[int, int]) -> None:
    height, width = size
    boxes = [[0.0, 0.0, width, height], [0.2 * width, 0.3 * height, 0.3 * width, 0.35 * height]]
    picture = draw(np.full((*size, 3), 128, np.uint8), make(categories, size, boxes))
    assert (picture != 128).any()


def test_a_hundred_objects(categories: Categories) -> None:
    boxes = np.random.default_rng(0).uniform(0, 200, (100, 4))
    boxes[:, 2:] += boxes[:, :2]
    draw(np.zeros((300, 700, 3), np.uint8), make(categories, (300, 700), boxes.tolist()))


def test_image_of_another_size_is_an_error(categories: Categories) -> None:
    with pytest.raises(
        ValueError, match=r"the image is uint8 \[4, 5, 3\]; this result is of a uint8 image \[4, 6, 3\]"
    ):
        draw(np.zeros((4, 5, 3), np.uint8), make(categories, (4, 6), []))


def test_labels_by_hand() -> None:
    # The first label goes above its box, aligned left; the second, of the same box, is aligned right.
    boxes = np.array([[10, 50, 90, 80], [10, 50, 90, 80]], np.float32)
    assert place_labels(boxes, [(30, 10), (30, 10)], (100, 100)) == [(10, 40), (60, 40)]


def test_labels_stay_inside_and_apart() -> None:
    boxes = np.array([[-5, -5, 20, 20], [90, 95, 130, 130], [0, 0, 100, 100]], np.float32)
    sizes = [(30, 10)] * 3
    corners = place_labels(boxes, sizes, (100, 100))
    covered = np.zeros((100, 100), int)
    for x, y in corners:
        assert 0 <= x <= 70 and 0 <= y <= 90
        covered[y : y + 10, x : x + 30] += 1
    assert covered.max() == 1


def test_label_larger_than_the_picture_starts_at_its_edge() -> None:
    assert place_labels(np.array([[1, 1, 2, 2]], np.float32), [(30, 10)], (4, 4)) == [(0, 0)]
