from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.data.coco import CocoAnnotation, CocoImage
from mrcnn_jax.data.objects import clipped_box, read_objects
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.data.transform import (
    ImageTransform,
    transform_objects,
    transform_pixels,
    transform_points,
    transform_proposals,
)
from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories(
    ids=(1, 2),
    names=("car", "dog"),
    keypoint_labels=(2,),
    keypoint_names=("nose", "left", "right"),
    flip_pairs=((1, 2),),
)
TRIANGLE = (np.array([[2.0, 1.0], [10.0, 1.0], [2.0, 5.0]]),)
POINTS = np.array([[3, 2, 2], [6, 1, 1], [5, 5, 0]], np.float32)


def item(identifier=1, **changes):
    fields = {"label": 2, "box": (2.0, 1.0, 10.0, 5.0), "crowd": False}
    fields |= {"segmentation": TRIANGLE, "keypoints": POINTS}
    return CocoAnnotation(id=identifier, **(fields | changes))


def image(*annotations, height=10, width=20):
    return CocoImage(1, Path("1.png"), "1.png", height, width, annotations)


def arrays(
    source,
    *,
    size=(10, 20),
    flip=False,
    down=False,
    turns=0,
    crop=None,
    max_objects=3,
    mask_grid=4,
    **changes,
):
    """The ground truth of an image resized to ``size`` and cropped to ``crop`` (top, left, height, width)."""
    objects = read_objects(source, mask_grid=mask_grid or 0, num_keypoints=3)
    top, left, *kept = crop or (0, 0, *size)
    transform = ImageTransform(
        (source.height, source.width), size, top, left, tuple(kept), flip, flip_vertical=down, turns=turns
    )
    settings = {"keypoints": True, "flip_pairs": CATEGORIES.flip_pairs} | changes
    return transform_objects(objects, transform, max_objects=max_objects, mask_grid=mask_grid, **settings)


def test_by_hand_at_original_size():
    rows = arrays(image(item()))
    assert rows["boxes"].tolist() == [[2, 1, 10, 5], [0] * 4, [0] * 4]
    assert rows["labels"].tolist() == [2, 0, 0]
    assert rows["valid"].tolist() == [True, False, False] and not rows["crowd"].any()
    # The right angle is at the top left; the diagonal passes through the centres of the antidiagonal.
    assert rows["masks"][0].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert rows["keypoints"][0].tolist() == [[3, 2, 2], [6, 1, 1], [0, 0, 0]]
    assert not rows["masks"][1:].any() and not rows["keypoints"][1:].any()
    assert {key: rows[key].dtype for key in rows} == {
        "boxes": np.float32, "labels": np.int32, "crowd": bool, "valid": bool, "masks": np.uint8,
        "mask_boxes": np.float32, "keypoints": np.float32,
    }  # fmt: skip


def test_by_hand_resized_and_flipped():
    rows = arrays(image(item()), size=(5, 60), flip=True)  # y halved, x tripled, then x -> 60 - x
    assert rows["boxes"][0].tolist() == [30, 0.5, 54, 2.5]
    assert rows["masks"][0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    # Left and right are swapped, so now the left one is not visible.
    assert rows["keypoints"][0].tolist() == [[51, 1, 2], [0, 0, 0], [42, 0.5, 1]]


def test_upside_down_by_hand():
    """y becomes 10 - y. A mirror image exchanges left and right hands, whichever way it is mirrored."""
    rows = arrays(image(item()), down=True)
    assert rows["boxes"][0].tolist() == rows["mask_boxes"][0].tolist() == [2, 5, 10, 9]
    assert rows["masks"][0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert rows["keypoints"][0].tolist() == [[3, 8, 2], [0, 0, 0], [6, 9, 1]]
    both = arrays(image(item()), down=True, flip=True)  # half a turn, after which left is left
    assert both["keypoints"][0].tolist() == [[17, 8, 2], [14, 9, 1], [0, 0, 0]]
    half = arrays(image(item()), turns=2)
    for name in both:
        np.testing.assert_array_equal(both[name], half[name], err_msg=name)


def test_a_quarter_turn_by_hand():
    """Counter-clockwise: (x, y) of 20 x 10 pixels becomes (y, 20 - x), then the height is halved."""
    rows = arrays(image(item()), size=(10, 10), turns=1)
    assert rows["boxes"][0].tolist() == rows["mask_boxes"][0].tolist() == [1, 5, 5, 9]
    # The right angle, which was at the top left, is at the bottom left.
    assert rows["masks"][0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert rows["keypoints"][0].tolist() == [[2, 8.5, 2], [1, 7, 1], [0, 0, 0]]
    back = arrays(image(item()), size=(20, 10), turns=3)
    assert back["boxes"][0].tolist() == [5, 2, 9, 10] and back["keypoints"][0, 0].tolist() == [8, 3, 2]


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_turned_objects_stay_on_their_pixels(turns, flips):
    """A drawn rectangle, its box and its mask, resized by two and cropped after the turn."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[1:5, 2:10] = 255
    size = (40, 20) if turns % 2 else (20, 40)
    transform = ImageTransform(
        (10, 20), size, 2, 1, (size[0] - 3, size[1] - 4), flips[0], flip_vertical=flips[1], turns=turns
    )
    shown = transform_pixels(pixels, transform, canvas=(40, 40), rule="detectron2")
    square = (np.array([[2.0, 1.0], [10.0, 1.0], [10.0, 5.0], [2.0, 5.0]]),)
    source = image(item(segmentation=square, keypoints=None))
    rows = arrays(
        source, size=size, turns=turns, flip=flips[0], down=flips[1], crop=(2, 1, size[0] - 3, size[1] - 4)
    )
    x1, y1, x2, y2 = rows["boxes"][0].astype(int)
    inside = shown[..., 0] > 127
    assert inside.sum() == (x2 - x1) * (y2 - y1) and inside[y1:y2, x1:x2].all()
    assert rows["masks"][0].all()


def test_four_quarter_turns_are_none():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3)).astype(np.uint8)
    plain, turned = (ImageTransform((10, 20), (10, 20), 0, 0, (10, 20), False, turns=k) for k in (0, 4))
    shown = [transform_pixels(pixels, one, canvas=(10, 20), rule="detectron2") for one in (plain, turned)]
    np.testing.assert_array_equal(*shown)
    plain, turned = arrays(image(item())), arrays(image(item()), turns=4)
    for name in plain:
        np.testing.assert_array_equal(plain[name], turned[name], err_msg=name)
    quarter = ImageTransform((10, 20), (20, 10), 0, 0, (20, 10), False, turns=1)
    shown = transform_pixels(pixels, quarter, canvas=(20, 10), rule="detectron2")
    np.testing.assert_array_equal(shown, np.rot90(pixels))  # lossless


def test_keypoint_offset_applies_in_the_original_image():
    plain, moved = (
        arrays(image(item()), size=(20, 60), mask_grid=None, keypoint_offset=offset) for offset in (0.0, 0.5)
    )
    seen = plain["keypoints"][0, :, 2] > 0
    assert seen.any() and not seen.all()
    np.testing.assert_allclose((moved["keypoints"] - plain["keypoints"])[0, seen], [[1.5, 1, 0]] * seen.sum())
    np.testing.assert_array_equal(moved["keypoints"][0, ~seen], 0)


def test_flipping_twice_changes_nothing():
    source = image(item(box=(3.0, 2.0, 17.0, 9.0)))
    flipped = arrays(source, flip=True)
    box = flipped["boxes"][0]
    again = image(
        item(
            box=tuple(box.tolist()),
            segmentation=tuple((polygon * (-1, 1)) + (20, 0) for polygon in TRIANGLE),
            keypoints=flipped["keypoints"][0],
        )
    )
    expected, rows = arrays(source), arrays(again, flip=True)
    for key in expected:
        np.testing.assert_array_equal(rows[key], expected[key])


def test_boxes_are_clipped_and_empty_ones_dropped():
    source = image(
        item(1, box=(-5.0, -5.0, 5.0, 30.0)),
        item(2, box=(20.0, 0.0, 25.0, 5.0)),  # outside
        item(3, box=(4.0, 4.0, 4.0, 9.0)),  # without width
    )
    rows = arrays(source)
    assert rows["valid"].tolist() == [True, False, False]
    assert rows["boxes"][0].tolist() == [0, 0, 5, 10]
    assert clipped_box(source.annotations[1], source) is None


def test_the_mask_frame_is_the_clipped_box():
    square = (np.array([[-4.0, 0.0], [4.0, 0.0], [4.0, 8.0], [-4.0, 8.0]]),)
    rows = arrays(image(item(box=(-4.0, 0.0, 4.0, 8.0), segmentation=square)))
    assert rows["boxes"][0].tolist() == [0, 0, 4, 8]
    assert rows["masks"][0].all()


def test_crowds_come_first_and_the_smallest_objects_are_ignored():
    source = image(
        item(1, box=(0.0, 0.0, 2.0, 2.0)),
        item(2, box=(0.0, 0.0, 4.0, 4.0)),
        item(3, box=(0.0, 0.0, 1.0, 1.0), crowd=True, label=1),
        item(4, box=(0.0, 0.0, 3.0, 3.0), crowd=True, label=1),
    )
    rows = arrays(source, max_objects=4)
    assert rows["boxes"][:, 2].tolist() == [3, 1, 4, 2]
    assert rows["crowd"].tolist() == [True, True, False, False] and rows["labels"].tolist() == [1, 1, 2, 2]
    assert not rows["masks"][:2].any() and not rows["keypoints"][:2].any()
    assert rows["masks"][2].any()
    # One row for the crowds, one for what is dropped, and one target: the larger crowd takes in the object.
    rows = arrays(source, max_objects=3)
    assert rows["boxes"][:, 2].tolist() == [1, 3, 4] and rows["crowd"].tolist() == [True, True, False]
    assert rows["labels"].tolist() == [1, 0, 2] and rows["valid"].all()
    assert not rows["masks"][:2].any() and not rows["keypoints"][:2].any() and rows["masks"][2].any()
    rows = arrays(source, max_objects=1)
    assert rows["boxes"].tolist() == rows["mask_boxes"].tolist() == [[0, 0, 4, 4]]
    assert rows["crowd"].tolist() == [True] and rows["labels"].tolist() == [0]


def test_an_object_that_shares_its_row_with_none_keeps_its_label():
    source = image(*(item(k, box=(0.0, 0.0, 20.0 - k, 4.0)) for k in range(12)))
    rows = arrays(source, max_objects=11, mask_grid=None)
    assert rows["crowd"].tolist() == [True] + [False] * 10 and rows["labels"][0] == 0
    source = image(*(item(k, box=(0.0, 0.0, 20.0 - k / 2, 4.0)) for k in range(22)))
    rows = arrays(source, max_objects=21, mask_grid=None)
    assert rows["crowd"].tolist() == [True] * 2 + [False] * 19
    assert sorted(rows["labels"].tolist()) == [0] + [2] * 20


def test_an_object_without_a_mask_gets_an_all_zero_one():
    rows = arrays(image(item(segmentation=None)))
    assert rows["valid"].tolist() == [True, False, False] and not rows["masks"].any()


def test_no_objects():
    rows = arrays(image())
    assert not rows["valid"].any() and not rows["boxes"].any()


def test_masks_and_keypoints_are_optional():
    rows = arrays(image(item()), mask_grid=None, keypoints=False)
    assert set(rows) == {"boxes", "labels", "crowd", "valid"}


def test_a_crop_by_hand():
    # Rows 2 to 7 and columns 4 to 11: the box from (2, 1) to (10, 5) begins above and left of them.
    rows = arrays(image(item()), crop=(2, 4, 6, 8))
    assert rows["boxes"][0].tolist() == [0, 0, 6, 3]
    assert rows["mask_boxes"][0].tolist() == [-2, -1, 6, 3]
    assert rows["masks"][0].tolist() == arrays(image(item()))["masks"][0].tolist()
    assert not rows["keypoints"].any()  # (3, 2) is left of it, (6, 1) above
    flipped = arrays(image(item()), crop=(2, 4, 6, 8), flip=True)
    assert flipped["boxes"][0].tolist() == [2, 0, 8, 3]
    assert flipped["mask_boxes"][0].tolist() == [2, -1, 10, 3]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("crop", "visible"),
    [
        ((2, 3, 6, 8), [True, False]),  # on its corner; above
        ((2, 4, 6, 8), [False, False]),  # left of it; above
        ((0, 0, 1, 6), [False, True]),  # below; on its other corner
        ((0, 0, 10, 5), [True, False]),
        ((0, 0, 10, 20), [True, True]),  # all of the image
    ],
)
def test_keypoints_outside_the_crop_are_not_visible(crop, visible, flip):
    """The keypoints are at (3, 2) and (6, 1); the third is not labelled."""
    top, left, _, width = crop
    wanted = np.array([[3 - left, 2 - top, 2], [6 - left, 1 - top, 1], [0, 0, 0]])
    if flip:
        wanted[:, 0] = width - wanted[:, 0]
    wanted[~np.array([*visible, False])] = 0
    source = image(item(box=(0.0, 0.0, 20.0, 10.0), segmentation=None))
    rows = arrays(source, crop=crop, flip=flip, flip_pairs=())
    assert rows["valid"][0] and rows["keypoints"][0].tolist() == wanted.tolist()


def test_a_keypoint_outside_the_image_is_not_visible():
    points = np.array([[20, 10, 2], [19.5, 9.5, 2], [-1, 5, 1]], np.float32)
    source = image(item(keypoints=points))
    assert arrays(source)["keypoints"][0, :, 2].tolist() == [2, 2, 0]
    moved = arrays(source, size=(20, 40), keypoint_offset=0.5)["keypoints"][0]
    assert moved.tolist() == [[0, 0, 0], [40, 20, 2], [0, 0, 0]]


def test_objects_outside_the_crop_are_dropped():
    corner = image(item(), item(2, box=(12.0, 6.0, 20.0, 10.0), segmentation=None))
    assert (
        arrays(corner, crop=(5, 0, 5, 11))["valid"].tolist() == [False] * 3
    )  # below one and left of the other
    assert arrays(corner, crop=(0, 10, 7, 10))["boxes"][0].tolist() == [2, 6, 10, 7]
    # The box reaches into the crop, but the triangle, whose right angle is top left, does not.
    assert not arrays(corner, crop=(4, 8, 2, 2))["valid"].any()
    assert arrays(corner, crop=(4, 8, 2, 2), mask_grid=None)["valid"].tolist() == [True, False, False]


@pytest.mark.parametrize("flip", [False, True])
def test_masks_follow_the_pixels(flip):
    """A drawn object and its mask, transformed alike, are the same except for cells at the border."""
    polygon = np.array([[30.0, 20.0], [170.0, 60.0], [120.0, 190.0], [50.0, 150.0]])
    box = (30.0, 20.0, 170.0, 190.0)
    drawn = np.repeat(
        rasterise((polygon,), (0.0, 0.0, 200.0, 200.0), 200)[..., None] * np.uint8(255), 3, axis=2
    )
    source = image(item(box=box, segmentation=(polygon,), keypoints=None), height=200, width=200)
    transform = ImageTransform((200, 200), (300, 260), top=70, left=20, size=(150, 120), flip=flip)
    rows = transform_objects(
        read_objects(source, mask_grid=112, num_keypoints=0),
        transform,
        max_objects=1,
        mask_grid=112,
        keypoints=False,
        flip_pairs=(),
    )
    shown = transform_pixels(drawn, transform, canvas=(150, 120), rule="detectron2")[..., 0] >= 128
    x1, y1, x2, y2 = rows["mask_boxes"][0]
    row = np.floor((np.arange(150) + 0.5 - y1) / (y2 - y1) * 112).astype(int)
    column = np.floor((np.arange(120) + 0.5 - x1) / (x2 - x1) * 112).astype(int)
    padded = np.pad(rows["masks"][0], 1)  # 0 outside the box
    rendered = padded[np.ix_(np.clip(row + 1, 0, 113), np.clip(column + 1, 0, 113))].astype(bool)
    assert 0.2 < shown.mean() < 0.8
    assert (rendered != shown).mean() < 0.01
    x1, y1, x2, y2 = rows["boxes"][0]
    assert (y1, y2) == (0, 150) and 0 <= x1 < x2 <= 120


def move(proposals, transform, *, count):
    points = partial(transform_points, transform=transform)
    return transform_proposals(proposals, points, size=transform.size, count=count)


def test_proposals_by_hand_resized_flipped_and_cropped():
    proposals = ImageProposals(
        np.array([[2, 1, 10, 5], [0, 0, 4, 10], [10, 6, 20, 10]], np.float32), np.array([3, 2, 1], np.float32)
    )
    # y halved, x tripled, then x -> 60 - x.
    transform = ImageTransform((10, 20), (5, 60), top=0, left=0, size=(5, 60), flip=True)
    rows = move(proposals, transform, count=4)
    assert rows["boxes"].tolist() == [[30, 0.5, 54, 2.5], [48, 0, 60, 5], [0, 3, 30, 5], [0] * 4]
    assert rows["scores"].tolist() == [3, 2, 1, -np.inf]
    assert rows["valid"].tolist() == [True, True, True, False]
    # Of the resized image, rows 1 to 4 and columns 12 to 32 are left: the second box ends at 12.
    transform = ImageTransform((10, 20), (5, 60), top=1, left=12, size=(3, 20), flip=True)
    rows = move(proposals, transform, count=2)
    assert rows["boxes"].tolist() == [[2, 0, 20, 1.5], [0, 2, 2, 3]]
    assert rows["scores"].tolist() == [3, 1] and rows["valid"].all()


@pytest.mark.parametrize("flip", [False, True])
def test_proposals_stay_on_their_objects(flip):
    rows = arrays(image(item()), size=(15, 31), flip=flip)
    proposals = ImageProposals(np.array([[2, 1, 10, 5]], np.float32), np.zeros(1, np.float32))
    transform = ImageTransform((10, 20), (15, 31), top=0, left=0, size=(15, 31), flip=flip)
    found = move(proposals, transform, count=1)
    np.testing.assert_array_equal(found["boxes"][0], rows["boxes"][0])
