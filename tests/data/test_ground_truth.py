from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage, read_coco
from mrcnn_jax.data.ground_truth import (
    annotations_to_arrays,
    clipped_box,
    count_overfull_images,
    has_objects,
    rasterise,
)
from mrcnn_jax.rle import Rle
from mrcnn_jax.types import Categories

COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"
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


def arrays(source, *, size=(10, 20), flip=False, max_objects=3, mask_grid=4):
    return annotations_to_arrays(
        source, CATEGORIES, size=size, flip=flip, max_objects=max_objects, mask_grid=mask_grid, keypoints=True
    )


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
        "keypoints": np.float32,
    }  # fmt: skip


def test_by_hand_resized_and_mirrored():
    rows = arrays(image(item()), size=(5, 60), flip=True)  # y halved, x tripled, then x -> 60 - x
    assert rows["boxes"][0].tolist() == [30, 0.5, 54, 2.5]
    assert rows["masks"][0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    # Left and right have changed places: the left one is not visible any more.
    assert rows["keypoints"][0].tolist() == [[51, 1, 2], [0, 0, 0], [42, 0.5, 1]]


def test_keypoints_are_moved_in_the_original_image():
    settings = {"flip": False, "max_objects": 1, "mask_grid": None, "keypoints": True}
    plain, moved = (
        annotations_to_arrays(image(item()), CATEGORIES, size=(20, 60), keypoint_offset=offset, **settings)
        for offset in (0.0, 0.5)
    )
    seen = plain["keypoints"][0, :, 2] > 0
    assert seen.any() and not seen.all()
    np.testing.assert_allclose((moved["keypoints"] - plain["keypoints"])[0, seen], [[1.5, 1, 0]] * seen.sum())
    np.testing.assert_array_equal(moved["keypoints"][0, ~seen], 0)


def test_mirrored_twice_is_the_same():
    source = image(item(box=(3.0, 2.0, 17.0, 9.0)))
    mirrored = arrays(source, flip=True)
    box = mirrored["boxes"][0]
    again = image(
        item(
            box=tuple(box.tolist()),
            segmentation=tuple((polygon * (-1, 1)) + (20, 0) for polygon in TRIANGLE),
            keypoints=mirrored["keypoints"][0],
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
    assert has_objects(source) and not has_objects(image(*source.annotations[1:]))


def test_the_mask_lies_in_the_clipped_box():
    square = (np.array([[-4.0, 0.0], [4.0, 0.0], [4.0, 8.0], [-4.0, 8.0]]),)
    rows = arrays(image(item(box=(-4.0, 0.0, 4.0, 8.0), segmentation=square)))
    assert rows["boxes"][0].tolist() == [0, 0, 4, 8]
    assert rows["masks"][0].all()


def test_crowds_come_first_and_the_largest_objects_are_kept():
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
    assert arrays(source, max_objects=3)["boxes"][:, 2].tolist() == [3, 1, 4]
    assert arrays(source, max_objects=1)["boxes"].tolist() == [[0, 0, 3, 3]]
    assert not has_objects(image(source.annotations[2])) and has_objects(source)


def test_images_with_too_many_rows_are_counted():
    outside = item(3, box=(20.0, 0.0, 25.0, 5.0))
    images = (image(item(1), item(2, crowd=True), item(4)), image(item(1), item(2), outside), image())
    dataset = CocoDataset("instances.json", CATEGORIES, images)
    assert [count_overfull_images(dataset, max_objects=rows) for rows in (1, 2, 3)] == [2, 1, 0]


def test_an_object_without_a_mask_has_an_all_zero_one():
    rows = arrays(image(item(segmentation=None)))
    assert rows["valid"].tolist() == [True, False, False] and not rows["masks"].any()


def test_no_objects():
    rows = arrays(image())
    assert not rows["valid"].any() and not rows["boxes"].any()


def test_only_what_is_wanted():
    rows = annotations_to_arrays(
        image(item()), CATEGORIES, size=(10, 20), flip=False, max_objects=2, mask_grid=None, keypoints=False
    )
    assert set(rows) == {"boxes", "labels", "crowd", "valid"}


def test_polygons_are_united_and_holes_are_even_odd():
    left = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0], [0.0, 4.0]])
    assert (
        rasterise((left, left + np.array([1.0, 0.0])), (0.0, 0.0, 4.0, 4.0), 4).tolist() == [[1, 1, 1, 0]] * 4
    )
    ring = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4], [0, 0], [1, 1], [3, 1], [3, 3], [1, 3], [1, 1]])
    expected = [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert rasterise((ring,), (0.0, 0.0, 4.0, 4.0), 4).tolist() == expected


def test_a_bitmap_is_averaged_over_the_cells():
    bitmap = np.zeros((4, 6), bool)
    bitmap[1:3, 1:4] = True
    rle = Rle(4, 6, np.array([5, 2, 2, 2, 2, 2, 9]))
    np.testing.assert_array_equal(rle.decode(), bitmap)
    assert rasterise(rle, (1.0, 1.0, 4.0, 3.0), 6).all()
    # Cells of 1.5 x 1: rows 2 and 3 are inside, and of the columns 2/3, 3/3 and 1/3.
    assert rasterise(rle, (0.5, 0.0, 5.0, 3.0), 3).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0]]
    # Exactly half of a cell counts, a third does not.
    assert rasterise(rle, (0.0, 1.0, 2.0, 3.0), 1).tolist() == [[1]]
    assert rasterise(rle, (0.0, 0.0, 2.0, 3.0), 1).tolist() == [[0]]


def from_pycocotools(encoded):
    return Rle.from_json({"size": encoded["size"], "counts": encoded["counts"].decode()})


def test_a_bitmap_and_its_polygon_agree():
    polygon = np.array([[30.0, 20.0], [170.0, 60.0], [120.0, 190.0], [50.0, 150.0]])
    bitmap = rasterise((polygon,), (0.0, 0.0, 200.0, 200.0), 200)
    encoded = coco_mask.encode(np.asfortranarray(bitmap))
    rle = from_pycocotools(encoded)
    box = (30.0, 20.0, 170.0, 190.0)
    difference = rasterise(rle, box, 112) != rasterise((polygon,), box, 112)
    assert 0 < difference.mean() < 0.01


def paste(mask, box, height, width):
    """A box-frame mask on the image's pixels, bilinear between the centres of its cells."""

    def weights(first, last, pixels):
        cell = (np.arange(pixels) + 0.5 - first) / (last - first) * len(mask) - 0.5
        return np.maximum(0, 1 - abs(cell[:, None] - np.arange(len(mask))))

    return weights(box[1], box[3], height) @ mask @ weights(box[0], box[2], width).T >= 0.5


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs ../shared/data/coco_mini")
def test_masks_of_coco_survive_the_box_frame():
    dataset = read_coco(COCO_MINI, images="val2017", annotations="annotations/instances_val2017.json")
    overlaps = []
    for source in dataset.images[::4]:
        for annotation in source.annotations:
            if isinstance(annotation.segmentation, Rle):
                continue
            polygons = [polygon.ravel().tolist() for polygon in annotation.segmentation]
            encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, source.height, source.width))
            expected = from_pycocotools(encoded).decode()
            box = clipped_box(annotation, source)
            pasted = paste(rasterise(annotation.segmentation, box, 112), box, source.height, source.width)
            overlaps.append((pasted & expected).sum() / (pasted | expected).sum())
    assert len(overlaps) > 100
    assert np.mean(overlaps) > 0.97
