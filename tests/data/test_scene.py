import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.data.box_agreement import mask_extent
from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.data.scene import crop, make_scene, place, rotate
from mrcnn_jax.data.transform import ImageTransform
from mrcnn_jax.rle import Rle

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures/detectron2_crop.json").read_text())
PAIRS = ((1, 2),)
BLACK = (0, 0, 0)


def item(box, polygons=None, keypoints=None, **changes):
    """An object; ``polygons`` are flat lists of x and y, or an Rle."""
    if not isinstance(polygons, Rle | None):
        polygons = tuple(np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons) or None
    if keypoints is not None:
        keypoints = np.array(keypoints, np.float32).reshape(-1, 3)
    fields = {"id": 1, "label": 1, "crowd": False} | changes
    return CocoAnnotation(box=tuple(box), segmentation=polygons, keypoints=keypoints, **fields)


def scene_of(*items, size=(10, 20), masks=True, **options):
    return make_scene(np.zeros((*size, 3), np.uint8), items, masks=masks, **options)


def mask_of(found, size):
    return pixels_of(found.segmentation, 0, 0, size[0], size[1])


def transform(original, resized, **changes):
    options = {"top": 0, "left": 0, "size": resized, "flip": False} | changes
    return ImageTransform(original, resized, **options)


TRIANGLE = [[2, 1, 10, 1, 2, 5]]
POINTS = [3, 2, 2, 6, 1, 1, 0, 0, 0]


def test_a_crop_by_hand():
    """Rows 2 to 7 and columns 4 to 11 of a triangle whose right angle is at (2, 1)."""
    scene = scene_of(item((2, 1, 10, 5), TRIANGLE, POINTS))
    part = crop(scene, 2, 4, 6, 8)
    (found,) = part.items
    assert part.pixels.shape == (6, 8, 3)
    # Its long side passes (8, 2) and (4, 4), so a smaller triangle is left of it, with the corner (4, 2).
    assert found.box == (0, 0, 4, 2)
    np.testing.assert_array_equal(mask_of(found, (6, 8))[:2, :4], [[1, 1, 1, 0], [1, 0, 0, 0]])
    assert not found.keypoints.any()  # left of it, and above


def test_without_masks_boxes_are_cut_alone():
    (found,) = crop(scene_of(item((2, 1, 10, 5), TRIANGLE), masks=False), 2, 4, 6, 8).items
    assert found.box == (0, 0, 6, 3) and found.segmentation is None


def test_objects_of_which_nothing_is_left_are_dropped():
    """The box reaches into the crop, but the triangle does not."""
    scene = scene_of(item((2, 1, 10, 5), TRIANGLE), item((2, 1, 10, 5)), item((12, 6, 20, 10)))
    (found,) = crop(scene, 4, 8, 2, 2).items
    assert found.segmentation is None and found.box == (0, 0, 2, 1)


def test_a_scene_is_cut_to_the_image():
    scene = scene_of(item((-5, -5, 5, 30), [[-5, -5, 5, -5, 5, 30, -5, 30]]), item((20, 0, 25, 5)))
    (found,) = scene.items
    assert found.box == (0, 0, 5, 10) and mask_extent(found.segmentation) == (0, 0, 5, 10)


@pytest.mark.parametrize("case", FIXTURE["cropped"])
def test_crops_as_in_detectron2(case):
    scene = place(
        crop(fixture_scene(case), *case["crop"]),
        transform(tuple(case["crop"][2:]), tuple(case["resized"]), flip=case["flip"]),
        rule="detectron2",
        flip_pairs=PAIRS,
    )
    assert_as_in_fixture(scene, case)


@pytest.mark.parametrize("case", FIXTURE["rotated"])
def test_turns_as_in_detectron2(case):
    assert_as_in_fixture(rotate(fixture_scene(case), case["degrees"], fill=BLACK), case)


def fixture_scene(case):
    fields = zip(case["boxes_before"], case["polygons"], case["keypoints_before"], strict=True)
    items = [item(*values, id=index) for index, values in enumerate(fields)]
    return scene_of(*items, size=tuple(case["size"]))


def assert_as_in_fixture(scene, case):
    assert list(scene.size) == case["size_after"]
    assert [found.id for found in scene.items] == case["kept"]
    # Up to half a pixel of a turned image lies beyond its rounded size; we cut it off.
    wanted = np.clip(case["boxes"], 0, [*scene.size[::-1]] * 2)
    np.testing.assert_allclose([found.box for found in scene.items], wanted, atol=2e-4)
    if case["areas"]:
        areas = [sum(map(area, found.segmentation)) for found in scene.items]
        np.testing.assert_allclose(areas, case["areas"], atol=0.02, rtol=1e-4)
    np.testing.assert_allclose([found.keypoints for found in scene.items], case["keypoints"], atol=2e-4)


def area(polygon):
    x, y = polygon.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@pytest.mark.parametrize("degrees", [30.0, -45.0, 3.0])
def test_turned_boxes_hug_the_turned_masks(degrees):
    """A drawn ellipse and its mask, turned alike, are the same except for pixels at the border."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ellipse = np.stack([110 + 60 * np.cos(angles), 90 + 25 * np.sin(angles)], axis=1)
    box = (*ellipse.min(axis=0), *ellipse.max(axis=0))
    for polygons in ([ellipse.ravel()], None):
        scene = scene_of(item(box, [ellipse.ravel()]), size=(160, 240))
        drawn = mask_of(scene.items[0], (160, 240))
        if polygons is None:  # as a bitmap
            scene = scene_of(item(box, Rle.from_bitmap(drawn)), size=(160, 240))
        scene = type(scene)(np.repeat(drawn[..., None] * np.uint8(255), 3, axis=2), scene.items)
        turned = rotate(scene, degrees, fill=BLACK)
        (found,) = turned.items
        mask, shown = mask_of(found, turned.size), turned.pixels[..., 0] >= 128
        assert shown.sum() > 4000 and (mask != shown).sum() < 0.02 * shown.sum()
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        extent = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        np.testing.assert_allclose(found.box, extent, atol=1.01)
        corners = rotate(scene_of(item(box), size=(160, 240)), degrees, fill=BLACK).items[0].box
        assert (
            corners[0] < found.box[0] and corners[3] > found.box[3]
        )  # those around the turned box are larger


def test_keypoints_turn_with_their_object_and_are_not_exchanged():
    scene = rotate(scene_of(item((0, 0, 20, 10), None, POINTS)), 30.0, fill=BLACK)
    height, width = scene.size
    cosine, sine = np.cos(np.pi / 6), 0.5
    x, y = 3 - 10, 2 - 5
    wanted = width / 2 + cosine * x + sine * y, height / 2 - sine * x + cosine * y
    np.testing.assert_allclose(scene.items[0].keypoints[0], [*wanted, 2], atol=1e-5)
    assert scene.items[0].keypoints[1, 2] == 1 and not scene.items[0].keypoints[2].any()


@pytest.mark.parametrize(("across", "down"), [(True, False), (False, True), (True, True)])
def test_left_and_right_are_exchanged_in_a_mirror_image(across, down):
    """Two flips are half a turn, after which a left hand is a left hand."""
    scene = scene_of(item((0, 0, 20, 10), None, [3, 2, 2, 6, 1, 1, 8, 4, 2]))
    flips = transform((10, 20), (10, 20), flip=across, flip_vertical=down)
    points = place(scene, flips, rule="detectron2", flip_pairs=PAIRS).items[0].keypoints
    wanted = np.array([[3, 2, 2], [6, 1, 1], [8, 4, 2]])
    wanted[:, 0] = 20 - wanted[:, 0] if across else wanted[:, 0]
    wanted[:, 1] = 10 - wanted[:, 1] if down else wanted[:, 1]
    np.testing.assert_array_equal(points, wanted if across and down else wanted[[0, 2, 1]])


@pytest.mark.parametrize("bitmap", [False, True])
def test_four_quarter_turns_and_two_flips_change_nothing(bitmap):
    mask = np.zeros((10, 20), bool)
    mask[1:5, 2:10] = np.random.default_rng(0).random((4, 8)) < 0.5
    mask[1, 2] = mask[4, 9] = True
    segmentation = Rle.from_bitmap(mask) if bitmap else TRIANGLE
    first = scene = scene_of(item((2, 1, 10, 5), segmentation, POINTS))
    for _ in range(4):
        size = scene.size
        turn = transform(size, size[::-1], turns=1)
        scene = place(scene, turn, rule="detectron2", flip_pairs=PAIRS)
    for flips in ({"flip": True}, {"flip_vertical": True}):
        for _ in range(2):
            scene = place(
                scene, transform(scene.size, scene.size, **flips), rule="detectron2", flip_pairs=PAIRS
            )
    (found,), (wanted,) = scene.items, first.items
    assert found.box == wanted.box
    np.testing.assert_array_equal(mask_of(found, (10, 20)), mask_of(wanted, (10, 20)))
    np.testing.assert_array_equal(found.keypoints, wanted.keypoints)
