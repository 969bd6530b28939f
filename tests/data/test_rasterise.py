from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.objects import clipped_box
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.rle import Rle

COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"


def test_polygons_are_merged_and_each_is_filled_even_odd():
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
    # Cells of 1.5 x 1 (width x height): rows 2 and 3 are fully covered, the columns by 2/3, 3/3 and 1/3.
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
    """A box-frame mask pasted onto the image, interpolated bilinearly between cell centres."""

    def weights(first, last, pixels):
        cell = (np.arange(pixels) + 0.5 - first) / (last - first) * len(mask) - 0.5
        return np.maximum(0, 1 - abs(cell[:, None] - np.arange(len(mask))))

    return weights(box[1], box[3], height) @ mask @ weights(box[0], box[2], width).T >= 0.5


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs ../shared/data/coco_mini")
def test_coco_masks_survive_the_box_frame():
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
