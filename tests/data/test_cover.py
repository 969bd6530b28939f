"""Pasting objects of another image, and erasing rectangles."""

import numpy as np
import pytest

from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.cover import choose_pasted, erase, erase_rectangle, paste
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.data.scene import Scene
from mrcnn_jax.rle import Rle

FILL = (9, 8, 7)


def rectangle(x1, y1, x2, y2, *, mask=True, **changes):
    polygon = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)
    fields = {"id": 1, "label": 1, "crowd": False, "keypoints": None} | changes
    box = float(x1), float(y1), float(x2), float(y2)
    return CocoAnnotation(box=box, segmentation=(polygon,) if mask else None, **fields)


def scene_of(*items, size=(10, 20), value=0):
    return Scene(np.full((*size, 3), value, np.uint8), items)


def pasted(below, *above, size=(10, 20)):
    """The scene of ``below`` with all of ``above``, from an image of value 200."""
    other = scene_of(*above, size=size, value=200)
    return paste(scene_of(*below), other, above, fill=FILL)


def mask_of(item, size=(10, 20)):
    return pixels_of(item.segmentation, 0, 0, size[0], size[1])


def test_by_hand():
    """A square covers the right half of a rectangle: the left half is left of it."""
    scene = pasted([rectangle(2, 1, 10, 5)], rectangle(6, 0, 12, 6))
    below, above = scene.items
    assert below.box == (2, 1, 6, 5) and above.box == (6, 0, 12, 6)
    wanted = np.zeros((10, 20), bool)
    wanted[1:5, 2:6] = True
    np.testing.assert_array_equal(mask_of(below), wanted)
    assert (scene.pixels[:6, 6:12] == 200).all() and scene.pixels.sum() == 3 * 200 * 36


def test_a_hole_leaves_the_box():
    (below, _) = pasted([rectangle(2, 1, 10, 9)], rectangle(4, 3, 6, 5)).items
    assert below.box == (2, 1, 10, 9) and mask_of(below).sum() == 64 - 4


def test_sides_that_lose_nothing_stay_within_their_pixel():
    (below, _) = pasted([rectangle(2.25, 1.5, 10.75, 5.25)], rectangle(8, 0, 12, 6)).items
    assert below.box == (2.25, 1.5, 8, 5.25)


def test_objects_that_are_not_covered_are_unchanged():
    item = rectangle(2, 1, 10, 5)
    assert pasted([item], rectangle(10, 0, 15, 9)).items[0] is item
    # The windows overlap, but not the masks.
    ring = Rle.from_bitmap(np.pad(np.zeros((6, 16), bool), 2, constant_values=True)[:10, :20])
    scene = pasted([rectangle(5, 4, 9, 7)], CocoAnnotation(2, 1, (0, 0, 20, 10), False, ring, None))
    assert scene.items[0].box == (5, 4, 9, 7) and isinstance(scene.items[0].segmentation, tuple)


def test_what_is_wholly_covered_is_dropped():
    """Also crowds, and of objects without a mask those whose box is covered."""
    inner = rectangle(4, 2, 6, 4)
    below = [inner, rectangle(4, 2, 6, 4, crowd=True), rectangle(4, 2, 6, 4, mask=False)]
    assert len(pasted(below, rectangle(3, 1, 7, 5)).items) == 1
    half = pasted(below, rectangle(5, 1, 7, 5)).items
    assert [item.box for item in half[:3]] == [(4, 2, 5, 4), (4, 2, 5, 4), (4, 2, 6, 4)]
    assert half[1].crowd and half[2].segmentation is None


def test_one_pixel_is_enough_to_stay():
    """As in torchvision's SimpleCopyPaste, and in the paper, which drops what is fully covered."""
    (below, _) = pasted([rectangle(4, 2, 6, 4)], rectangle(3, 1, 7, 3), rectangle(5, 3, 9, 9)).items[::2]
    assert below.box == (4, 3, 5, 4) and mask_of(below).sum() == 1


def test_pasted_objects_do_not_cover_each_other():
    scene = pasted([], rectangle(2, 2, 8, 8), rectangle(4, 4, 12, 9))
    assert [mask_of(item).sum() for item in scene.items] == [36, 40]


def test_the_image_grows_with_what_is_pasted():
    scene = pasted([rectangle(2, 1, 10, 5)], rectangle(15, 4, 25, 14.5), size=(30, 30))
    assert scene.size == (15, 25)
    assert (scene.pixels[12, 0] == FILL).all() and (scene.pixels[0, 22] == FILL).all()
    # The lowest row's centres are on the polygon's edge.
    assert (scene.pixels[4:14, 15:25] == 200).all() and not scene.pixels[:4, :15].any()
    assert scene.items[1].box == (15, 4, 25, 14.5)
    larger = pasted([rectangle(2, 1, 10, 5)], rectangle(1, 1, 3, 3), size=(30, 30))
    assert larger.size == (10, 20)


def test_covered_keypoints_are_hidden():
    points = np.array([[3, 2, 2], [8, 2, 2], [8.9, 4.9, 1], [0, 0, 0]], np.float32)
    (below, _) = pasted([rectangle(2, 1, 10, 5, keypoints=points)], rectangle(6, 0, 12, 6)).items
    assert below.keypoints[:, 2].tolist() == [2, 1, 1, 0]
    np.testing.assert_array_equal(below.keypoints[:, :2], points[:, :2])
    assert below.keypoints.dtype == np.float32


def test_a_paste_is_the_drawing_of_both():
    """Masks, boxes and pixels against a painter's algorithm on random shapes."""
    rng = np.random.default_rng(0)
    size = 40, 60
    for _ in range(20):
        below, above = (
            [
                CocoAnnotation(k, 1, (*p.min(0), *p.max(0)), False, (p,), None)
                for k in range(4)
                for p in [rng.uniform(0, 1, (7, 2)) * (60, 40)]
            ]
            for _ in range(2)
        )
        found = paste(scene_of(*below, size=size), scene_of(*above, size=size, value=255), above, fill=FILL)
        front = np.any([mask_of(item, size) for item in above], axis=0)
        np.testing.assert_array_equal(found.pixels[..., 0] == 255, front)
        left = {item.id: item for item in found.items[: len(found.items) - 4]}
        for item in below:
            visible = mask_of(item, size) & ~front
            assert (item.id in left) == visible.any()
            if visible.any():
                np.testing.assert_array_equal(mask_of(left[item.id], size), visible)
                rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
                tight = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                covers_any = not np.array_equal(visible, mask_of(item, size))
                assert not covers_any or np.abs(np.subtract(left[item.id].box, tight)).max() < 1


def test_a_random_subset_is_pasted_but_no_crowds():
    items = [rectangle(k, 0, k + 1, 5, id=k) for k in range(10)]
    others = [rectangle(0, 0, 9, 9, id=98, crowd=True), rectangle(0, 0, 9, 9, id=99, mask=False)]
    scene = scene_of(*items, *others)
    drawn = [[item.id for item in choose_pasted(scene, np.random.default_rng(k))] for k in range(300)]
    assert all(ids == sorted(set(ids)) and max(ids) < 10 for ids in drawn)
    assert abs(np.mean([len(ids) for ids in drawn]) - 10 * (1 - 0.9**10)) < 0.3
    assert len({tuple(ids) for ids in drawn}) > 100
    assert choose_pasted(scene_of(*others), np.random.default_rng(0)) == []


def test_an_erased_rectangle_by_hand():
    points = np.array([[5, 3, 2], [15, 8, 2], [0, 0, 0]], np.float32)
    items = [
        rectangle(4, 2, 8, 5, id=1),  # just covered
        rectangle(4, 2, 8.5, 5, id=2, keypoints=points),
        rectangle(4, 2, 8, 5, id=3, mask=False),
        rectangle(4, 2, 8, 5, id=4, crowd=True),
    ]
    scene = erase_rectangle(scene_of(*items, value=50), 2, 4, 3, 4, fill=FILL)
    (found,) = scene.items
    assert found.id == 2 and found.box == (4, 2, 8.5, 5)
    assert found.segmentation is items[1].segmentation
    assert found.keypoints[:, 2].tolist() == [1, 2, 0]
    assert (scene.pixels[2:5, 4:8] == FILL).all()
    assert (scene.pixels == 50).all(axis=2).sum() == 200 - 12


def test_random_rectangles_are_in_torchvisions_ranges():
    base = scene_of(rectangle(0, 0, 300, 200), size=(200, 300), value=50)
    areas, ratios, tops = [], [], []
    for k in range(200):
        erased = (erase(base, np.random.default_rng(k), fill=FILL).pixels == FILL).all(axis=2)
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        assert erased.sum() == len(rows) * len(columns)  # a rectangle
        areas.append(erased.mean())
        ratios.append(len(rows) / len(columns))
        tops.append(rows[0])
    assert 0.019 < min(areas) < 0.05 and 0.29 < max(areas) < 0.332
    assert 0.28 < min(ratios) < 0.4 and 2.5 < max(ratios) < 3.5 and len(set(tops)) > 60
    assert not base.pixels.min() < 50  # the original is as it was


def test_an_image_of_one_pixel_is_not_erased():
    tiny = scene_of(size=(1, 1), value=50)
    assert erase(tiny, np.random.default_rng(0), fill=FILL) is tiny


def test_only_masks_can_be_pasted():
    with pytest.raises(ValueError, match="annotation 1 has no mask to paste"):
        pasted([], rectangle(0, 0, 3, 3, mask=False))
