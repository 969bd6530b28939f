"""A dataset of a program's own gives the objects of the same dataset in COCO's format."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.own import as_source
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.data.source import DataSource, FolderSource
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories


class Photos:
    """Items in a list, which tests change."""

    categories = "cat", "dog"

    def __init__(self, *items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


IMAGE = np.full((4, 6, 3), 7, np.uint8)
MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True


def test_by_hand(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    polygon = [[2, 1], [5, 1], [5, 3], [2, 3]]
    source = as_source(
        Photos(
            {
                "image": tmp_path / "photo.png",
                "labels": ["dog", 1, "cat"],
                "boxes": [[2, 1, 5, 3], [0, 0, 6, 4], [1, 1, 2, 2]],
                "masks": [[polygon], MASK, None],
                "crowd": [False, True, False],
                "id": 7,
            },
            {"image": IMAGE, "labels": []},
            {"image": IMAGE, "labels": np.array([2]), "masks": MASK[None]},
        ),
        mask_grid=4,
    )
    assert isinstance(source, DataSource) and source.name == "Photos"
    assert source.ids.tolist() == [7, 2, 3] and source.sizes.tolist() == [[4, 6]] * 3
    assert source.learnable.tolist() == [True, False, True] and source.num_objects.tolist() == [3, 0, 1]
    assert source.has_masks and source.categories.names == ("cat", "dog")
    first, _, third = (source.annotations(index) for index in range(3))
    assert [item.id for item in (*first, *third)] == [1, 2, 3, 4]
    assert [(item.label, item.crowd, item.box) for item in first] == [
        (2, False, (2, 1, 5, 3)),
        (1, True, (0, 0, 6, 4)),
        (1, False, (1, 1, 2, 2)),
    ]
    np.testing.assert_array_equal(first[0].segmentation[0], polygon)
    assert isinstance(first[1].segmentation, Rle) and first[2].segmentation is None
    assert third[0].box == (2, 1, 5, 3)  # the mask's
    picture = source.read(0)
    np.testing.assert_array_equal(picture.pixels, IMAGE)
    assert picture.name == "Photos[0]" and picture.objects.crowd.tolist() == [True, False, False]
    assert as_source(source, mask_grid=4) is source


@pytest.mark.parametrize("form", ["polygons", "flat", "bitmap", "rle"])
def test_equals_the_same_data_as_a_coco_folder(tmp_path, form):
    make_shapes(tmp_path, train=3, val=1, image_size=64, seed=0)
    file = "annotations/instances_train.json"
    expected = FolderSource(read_coco(tmp_path, images="train", annotations=file), mask_grid=28)
    content = json.loads((tmp_path / file).read_text())

    def mask_of(item):
        if isinstance(item["segmentation"], dict):
            return item["segmentation"]
        polygons = [np.reshape(polygon, (-1, 2)) for polygon in item["segmentation"]]
        if form == "polygons":
            return polygons
        if form == "flat":
            return item["segmentation"]
        x, y, width, height = np.round(item["bbox"]).astype(int)
        bitmap = np.zeros((64, 64), np.uint8)
        bitmap[y : y + height + 1, x : x + width + 1] = 1
        return bitmap if form == "bitmap" else Rle.from_bitmap(bitmap).compressed()

    items = []
    for image in content["images"]:
        objects = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        boxes = np.reshape([item["bbox"] for item in objects], (-1, 4))
        points = np.zeros((len(objects), 9, 3))
        for row, item in enumerate(objects):
            if any(item.get("keypoints", ())):
                points[row] = np.reshape(item["keypoints"], (9, 3))
        items.append(
            {
                "id": image["id"],
                "image": str(tmp_path / "train" / image["file_name"]),
                "labels": [item["category_id"] for item in objects],
                "boxes": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
                "masks": [mask_of(item) for item in objects],
                "keypoints": points,
                "crowd": [item["iscrowd"] for item in objects],
            }
        )
    photos = Photos(*items)
    photos.categories = expected.categories
    found = as_source(photos, mask_grid=28)
    for name in ("ids", "sizes", "learnable", "num_objects"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for index in range(3):
        here, there = found.objects(index), expected.objects(index)
        for field in dataclasses.fields(there):
            if field.name in ("ids", "areas") or (field.name == "masks" and form in ("bitmap", "rle")):
                continue
            np.testing.assert_array_equal(getattr(here, field.name), getattr(there, field.name), field.name)
        assert (here.masks.sum(axis=1) > 0).all()
        np.testing.assert_array_equal(found.read(index).pixels, expected.read(index).pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": ["bird"]},
            r"labels must be names of \['cat', 'dog'\] or numbers from 1 to 2, got 'bird'",
        ),
        ({"labels": [0]}, r"labels must be .* got 0"),
        ({"boxes": [[5, 1, 2, 3]]}, r"boxes must have x1 <= x2 and y1 <= y2"),
        (
            {"boxes": [[2, 1, 5]]},
            r"boxes must be finite numbers \[1, 4\] \(x1 y1 x2 y2\), got shape \[1, 3\]",
        ),
        ({"boxes": [[2, 1, 5, np.nan]]}, r"boxes must be finite numbers"),
        ({"boxes": None}, r"boxes may be absent only if every object has a mask that is not empty"),
        ({"boxes": None, "masks": [0 * MASK]}, r"boxes may be absent only if"),
        ({"masks": [MASK, MASK]}, r"masks has 2 values for 1 labels"),
        ({"masks": [MASK.T]}, r"masks must be of the image's size \[4, 6\], got \[6, 4\]"),
        ({"masks": [[[1, 2, 3]]]}, r"masks must be polygons \[P 2\], got \[1, 2, 3\]"),
        ({"masks": [{"size": [4, 6], "counts": [1]}]}, r"segmentation: RLE counts must be"),
        ({"crowd": [True, False]}, r"crowd has 2 values for 1 labels"),
        ({"keypoints": np.zeros((1, 3, 3))}, r"keypoints must be finite numbers \[1, 0, 3\]"),
        (
            {"image": IMAGE / 255},
            r"image must be a path or an array .*: its values are float64 \(\[4, 6, 3\]",
        ),
        ({"image": "none.png"}, r"none.png: cannot be read"),
        ({"id": "a"}, r"id must be an integer, got 'a'"),
        ({"bboxes": []}, r"must be a mapping with 'image', 'labels' and some of"),
    ],
)
def test_errors_name_the_item_and_the_rule(change, message):
    item = {"image": IMAGE, "labels": ["cat"], "boxes": [[2, 1, 5, 3]]}
    with pytest.raises(ValueError, match=rf"^Photos\[1\]: {message}"):
        as_source(Photos(item, item | change), mask_grid=4)


def test_ids_must_differ():
    item = {"image": IMAGE, "labels": [], "id": 3}
    with pytest.raises(ValueError, match=r"^Photos: several items have the same id$"):
        as_source(Photos(item, item), mask_grid=4)


def test_an_item_that_changes_its_size_is_an_error():
    photos = Photos({"image": IMAGE, "labels": []})
    source = as_source(photos, mask_grid=4)
    photos.items[0] = {"image": IMAGE[1:], "labels": []}
    with pytest.raises(ValueError, match=r"^Photos\[0\]: the file has 3x6 pixels"):
        source.read(0)


def test_boxes_are_compared_with_their_masks():
    """As in files: one that is off is a warning, most of them are an error."""
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    right = {"image": image, "labels": ["cat"], "boxes": [[10, 10, 30, 30]], "masks": [mask]}
    wrong = right | {"boxes": [[40, 40, 60, 60]]}
    (finding,) = as_source(Photos(*[right] * 20, wrong), mask_grid=4).findings
    assert finding.warning and "does not fit its segmentation" in finding.rule
    with pytest.raises(
        ValueError, match=r"^Photos: bbox does not fit the segmentation in 4 of 5 annotations"
    ):
        as_source(Photos(right, *[wrong] * 4), mask_grid=4)


def test_keypoints_are_compared_with_their_boxes():
    photos = Photos(
        {
            "image": np.zeros((64, 64, 3), np.uint8),
            "labels": [1, 1, 1],
            "boxes": [[30, 30, 50, 50]] * 3,
            "keypoints": [[[0.3, 0.4, 2]]] * 3,
        }
    )
    photos.categories = Categories(ids=(1,), names=("cat",), keypoint_labels=(1,), keypoint_names=("nose",))
    with pytest.raises(
        ValueError, match=r"^Photos: keypoints lie outside of the box in 3 of 3 annotations: they"
    ):
        as_source(photos, mask_grid=4)
