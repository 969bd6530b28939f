import json

import numpy as np
import pytest

from mrcnn_jax.data.annotations import read_annotations, write_annotations
from mrcnn_jax.data.coco import CocoAnnotation, read_coco
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories(ids=(3, 7), names=("car", "dog"), keypoint_labels=(2,), keypoint_names=tuple("abc"))


def as_values(item):
    """The annotation as values whose equality is that of every bit."""
    segmentation = item.segmentation
    if isinstance(segmentation, Rle):
        segmentation = (segmentation.height, segmentation.width, segmentation.counts.tolist())
    elif segmentation is not None:
        segmentation = [(polygon.dtype, polygon.shape, polygon.tobytes()) for polygon in segmentation]
    keypoints = None if item.keypoints is None else (item.keypoints.dtype, item.keypoints.tolist())
    return repr((item.id, item.label, item.box, item.crowd, segmentation, keypoints, item.area))


def test_by_hand(folder, tmp_path):
    first, second = folder.add_image(), folder.add_image()
    folder.add_object(first, bbox=[0.1, 0.2, 0.3, 5], area=1 / 3, segmentation=[[0.1, 0.2, 8, 1, 3, 7.7]] * 2)
    folder.add_object(first, category_id=3, keypoints=[], segmentation=[])
    crowd = {"size": [10, 20], "counts": [0, 40, 150, 10]}
    folder.add_object(second, iscrowd=1, segmentation=crowd, keypoints=[0.1] * 2 + [2] + [0] * 6)
    del folder.content["annotations"][1]["area"]
    folder.add_image()
    images = read_coco(**folder.write()).images
    path = tmp_path / "annotations.jsonl"
    write_annotations(path, images)
    assert len(path.read_text().splitlines()) == 3
    found = read_annotations(path, sizes=np.array([[10, 20]] * 3), categories=CATEGORIES)
    assert [len(annotations) for annotations in found] == [2, 1, 0]
    for annotations, image in zip(found, images, strict=True):
        assert list(map(as_values, annotations)) == list(map(as_values, image.annotations))
    assert found[0][1].area is None and found[0][1].segmentation is None and found[0][1].keypoints is None


@pytest.mark.parametrize("seed", range(5))
def test_random_numbers_keep_every_bit(seed, tmp_path):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=4) * 10.0 ** rng.integers(-9, 9, 4)
    item = CocoAnnotation(
        id=int(rng.integers(2**62)),
        label=2,
        box=tuple(values.tolist()),
        crowd=False,
        segmentation=tuple(rng.normal(0, 1e3, (count, 2)) for count in (3, 50)),
        keypoints=rng.normal(0, 100, (3, 3)).astype(np.float32),
        area=float(abs(values[0])),
    )

    class Image:
        annotations = (item,)

    write_annotations(tmp_path / "a", [Image])
    ((found,),) = read_annotations(tmp_path / "a", sizes=np.array([[10, 20]]), categories=CATEGORIES)
    assert as_values(found) == as_values(item)


def test_a_mask_of_another_size_than_its_image_is_an_error(folder, tmp_path):
    """An RLE of a gigapixel takes a few bytes until it is decoded."""
    crowd = {"size": [10, 20], "counts": [0, 40, 150, 10]}
    folder.add_object(folder.add_image(), iscrowd=1, segmentation=crowd)
    path = tmp_path / "annotations.jsonl"
    write_annotations(path, read_coco(**folder.write()).images)
    with pytest.raises(ValueError, match=r"annotations\.jsonl: damaged: .*size of the image, \[10, 21\]"):
        read_annotations(path, sizes=np.array([[10, 21]]), categories=CATEGORIES)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("label", 0, "label must be from 1 to 2, got 0"),
        ("label", -1, "label must be from 1 to 2, got -1"),
        ("label", 3, "label must be from 1 to 2, got 3"),
        ("label", True, "label must be from 1 to 2, got True"),
        ("box", [0, 0, float("nan"), 1], "box must be four finite numbers, got [0, 0, nan, 1]"),
        ("box", [0, 0, 1], "box must be four finite numbers, got [0, 0, 1]"),
        ("crowd", "no", "crowd must be true or false, got 'no'"),
        ("area", "big", "area must be null or a finite number, got 'big'"),
        ("id", 1.5, "id must be an integer, got 1.5"),
        (
            "keypoints",
            [[1, 2, 2]],
            "keypoints must be null or [x, y, visibility] for each of 3, got [[1, 2, 2]]",
        ),
    ],
)
def test_values_that_no_annotation_has_are_an_error(field, value, rule, folder, tmp_path):
    """A label beyond the categories would be counted as another one, or as none."""
    folder.add_object(folder.add_image())
    path = tmp_path / "annotations.jsonl"
    write_annotations(path, read_coco(**folder.write()).images)
    (entry,) = json.loads(path.read_text())
    path.write_text(f"[]\n{json.dumps([{**entry, field: value}])}\n")
    name = value if field == "id" else 1
    with pytest.raises(ValueError) as error:
        read_annotations(path, sizes=np.array([[10, 20]] * 2), categories=CATEGORIES)
    assert f"annotations.jsonl: damaged: line 2, annotation {name}: {rule}; to evaluate" in str(error.value)
