"""A function of one's own: what it gets, what becomes of its results, and what is said of wrong ones."""

import dataclasses

import numpy as np
import pytest

from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.own_augment import Example, apply_augment, load_augment
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.data.scene import Scene
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories(
    ids=(1, 2),
    names=("car", "dog"),
    keypoint_labels=(2,),
    keypoint_names=("nose", "left", "right"),
    flip_pairs=((1, 2),),
)
POINTS = np.array([[3, 2, 2], [6, 1, 1], [0, 0, 0]], np.float32)


def scene():
    """A dog with a mask and keypoints, and a crowd of cars with neither."""
    triangle = (np.array([[2.0, 1.0], [10.0, 1.0], [2.0, 5.0]]),)
    dog = CocoAnnotation(1, 2, (2.0, 1.0, 10.0, 5.0), False, triangle, POINTS)
    cars = CocoAnnotation(2, 1, (12.0, 0.0, 20.0, 9.5), True, None, None)
    return Scene(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(10, 20, 3), (dog, cars))


def apply(function, original=None):
    return apply_augment(
        function, original or scene(), np.random.default_rng(0), CATEGORIES, where="photos/1.jpg"
    )


def mirrored(example, generator):
    """A flip that knows nothing of keypoints' names: the function must exchange them."""
    width = example.image.shape[1]
    boxes = np.stack(
        [width - example.boxes[:, 2], example.boxes[:, 1], width - example.boxes[:, 0], example.boxes[:, 3]],
        axis=1,
    )
    keypoints = np.where(example.keypoints[..., 2:] > 0, example.keypoints * (-1, 1, 1) + (width, 0, 0), 0)[
        :, [0, 2, 1]
    ]
    return Example(
        example.image[:, ::-1], boxes, example.masks[:, :, ::-1], keypoints, example.labels, example.crowd
    )


def test_what_the_function_gets():
    def look(example, generator):
        assert example.image.dtype == np.uint8 and example.image.shape == (10, 20, 3)
        assert example.boxes.tolist() == [[2, 1, 10, 5], [12, 0, 20, 9.5]]
        wanted = pixels_of(scene().items[0].segmentation, 0, 0, 10, 20)
        np.testing.assert_array_equal(example.masks, [wanted, np.zeros((10, 20), bool)])
        np.testing.assert_array_equal(example.keypoints, [POINTS, np.zeros((3, 3))])
        assert example.labels.tolist() == [2, 1] and example.crowd.tolist() == [False, True]
        example.image[:] = 0  # its own copy
        return example

    original = scene()
    found = apply(look, original)
    assert original.pixels.any() and not found.pixels.any()
    assert [item.box for item in found.items] == [(2, 1, 10, 5), (12, 0, 20, 9.5)]
    assert found.items[1].segmentation is None and found.items[1].keypoints is None and found.items[1].crowd
    np.testing.assert_array_equal(found.items[0].keypoints, POINTS)


def test_twice_a_flip_is_the_scene_again():
    once = apply(mirrored)
    dog, cars = once.items
    assert dog.box == (10, 1, 18, 5) and cars.box == (0, 0, 8, 9.5)
    assert dog.keypoints.tolist() == [[17, 2, 2], [0, 0, 0], [14, 1, 1]]
    twice = apply(mirrored, once)
    np.testing.assert_array_equal(twice.pixels, scene().pixels)
    assert [item.box for item in twice.items] == [item.box for item in scene().items]
    np.testing.assert_array_equal(twice.items[0].keypoints, POINTS)


def test_another_size_fewer_objects_and_boxes_beyond_the_image():
    def cut(example, generator):
        boxes = np.concatenate([example.boxes[:1] - 3, [[40, 40, 50, 50]]])
        masks = np.concatenate([example.masks[:1, 3:, 3:], np.zeros((1, 7, 17), bool)])
        return Example(
            example.image[3:, 3:], boxes, masks, example.keypoints[[0, 0]], example.labels[[0, 0]],
            np.zeros(2, bool),
        )  # fmt: skip

    found = apply(cut)
    (dog,) = found.items
    assert found.size == (7, 17) and dog.box == (0, 0, 7, 2) and dog.label == 2


def test_the_generator_decides():
    def noisy(example, generator):
        noise = generator.integers(0, 9, example.image.shape, np.uint8)
        return dataclasses.replace(example, image=example.image + noise)

    np.testing.assert_array_equal(apply(noisy).pixels, apply(noisy).pixels)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"image": np.zeros((10, 20), np.uint8)}, r"image must be uint8 \[H W 3\], got uint8 \[10, 20\]"),
        ({"image": np.zeros((10, 20, 3))}, r"image must be uint8 \[H W 3\], got float64 \[10, 20, 3\]"),
        ({"boxes": [[1, 2, 3, 4]]}, "boxes must be a NumPy array, got list"),
        (
            {"boxes": np.zeros((1, 4))},
            r"boxes must be numbers \[2, 4\] for 2 labels and an image of 10x20, got float64 \[1, 4\]",
        ),
        ({"masks": np.zeros((2, 10, 20))}, r"masks must be bool \[2, 10, 20\] .*, got float64"),
        ({"masks": np.zeros((2, 10, 10), bool)}, r"masks must be bool .*, got bool \[2, 10, 10\]"),
        ({"keypoints": np.zeros((2, 2, 3))}, r"keypoints must be numbers \[2, 3, 3\]"),
        ({"labels": np.array([2.0, 1.0])}, r"labels must be integers \[2\] .*, got float64 \[2\]"),
        ({"labels": np.array([2, 3])}, "labels must be from 1 to 2, got 3"),
        ({"labels": np.array([0, 1])}, "labels must be from 1 to 2, got 0"),
        ({"crowd": np.zeros(2, int)}, r"crowd must be bool \[2\]"),
        (
            {"boxes": np.array([[1, 2, 3, 4], [5.0, 2, 3, 4]])},
            r"boxes must be finite with x1 <= x2 and y1 <= y2, got \[5.0, 2.0, 3.0, 4.0\]",
        ),
        ({"boxes": np.full((2, 4), np.nan)}, "boxes must be finite"),
        ({"keypoints": np.full((2, 3, 3), np.inf)}, "keypoints must be finite"),
        ({"keypoints": np.full((2, 3, 3), 3.0)}, "keypoints must have visibility 0, 1 or 2, got 3"),
    ],
)
def test_wrong_results_are_named(changes, rule):
    def broken(example, generator):
        return dataclasses.replace(example, **changes)

    with pytest.raises(ValueError, match=rf"photos/1\.jpg: what the function broken makes of it: .*{rule}"):
        apply(broken)


def test_all_wrong_fields_are_named_at_once():
    def broken(example, generator):
        return dataclasses.replace(example, masks=np.zeros(3), crowd=np.zeros(3), labels=np.zeros(2))

    with pytest.raises(ValueError, match=r"masks must .*; labels must .*; crowd must"):
        apply(broken)
    with pytest.raises(ValueError, match="it must be an Example, got NoneType"):
        apply(lambda example, generator: None)


def test_a_function_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Settings:\n"
        "    strength: float = 1.0\n"
        "value = 3\n"
        "def darker(example, generator):\n"
        "    return example\n"
    )
    function = load_augment(f"{path}:darker")
    assert function.__name__ == "darker" and len(apply(function).items) == 2
    for text, rule in (
        (str(path), "must be a Python file and a function in it, FILE.py:FUNCTION"),
        (f"{path}:", "must be a Python file and a function in it"),
        (f"{tmp_path}/other.py:darker", "there is no file .*other.py"),
        (f"{path}:lighter", "mine.py has no function lighter"),
        (f"{path}:value", "mine.py has no function value"),
    ):
        with pytest.raises(ValueError, match=f"--augment=.*: .*{rule}"):
            load_augment(text)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"mine\.txt is no Python file"):
        load_augment(f"{tmp_path}/mine.txt:darker")
