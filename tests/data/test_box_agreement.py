from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.data.box_agreement import BoxAgreement, mask_extent
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.rle import Rle

DATA = Path(__file__).parents[3] / "shared" / "data"
SIZE = (100, 200)  # height, width
# x, y, width, height of ten boxes, none near the upper left corner, and none like another
BOXES = [[60 + 7 * i, 30 + 4 * i, 20 + 3 * i, 12 + i] for i in range(10)]


def polygon(x, y, width, height):
    return (np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], float),)


def judge(boxes, masks, *, size=SIZE):
    """What is found of objects 1, 2, ... of image 3; ``masks`` are their true boxes, or None for no mask."""
    agreement = BoxAgreement("a.json")
    for number, (bbox, mask) in enumerate(zip(boxes, masks, strict=True), start=1):
        agreement.add(
            image_id=3,
            annotation_id=number,
            bbox=bbox,
            segmentation=None if mask is None else polygon(*mask),
            size=size,
            warned=False,
        )
    return agreement.judge()


def test_extents_by_hand():
    assert mask_extent((np.array([[3, 4], [9, 4.5], [3, 8]]),)) == (3, 4, 9, 8)
    assert mask_extent((*polygon(3, 4, 2, 2), *polygon(10, 1, 5, 2))) == (3, 1, 15, 6)
    # Columns of 4 pixels: one run in column 1, one from column 2 to 3, whose rows are then all of them.
    assert mask_extent(Rle(4, 6, np.array([5, 2, 17]))) == (1, 1, 2, 3)
    assert mask_extent(Rle(4, 6, np.array([10, 4, 10]))) == (2, 0, 4, 4)
    assert mask_extent(Rle(4, 6, np.array([0, 24]))) == (0, 0, 6, 4)
    assert mask_extent(Rle(4, 6, np.array([24]))) is None
    assert mask_extent(Rle(4, 6, np.array([4, 0, 20]))) is None


def test_the_extent_of_an_rle_is_that_of_its_bitmap():
    rng = np.random.default_rng(0)
    for _ in range(100):
        bitmap = rng.random((7, 9)) < rng.choice([0.02, 0.3])
        rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
        wanted = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None
        assert mask_extent(Rle.from_bitmap(bitmap)) == wanted


@pytest.mark.parametrize(
    "bbox",
    [
        [60, 30, 20, 12],
        [58.5, 28.5, 23, 15],  # drawn around it by hand
        [60, 30, 38, 12],  # almost twice as wide
        [61.5, 31, 16, 9],
    ],
)
def test_boxes_that_fit(bbox):
    assert judge([bbox] * 4, [BOXES[0]] * 4) == ([], set())


def test_tiny_objects_fit_if_no_edge_is_off_by_more_than_two_pixels():
    assert judge([[50, 50, 1, 1]], [[51, 51, 2, 2]]) == ([], set())
    assert len(judge([[50, 50, 1, 1]], [[53, 53, 1, 1]])[0]) == 1


def test_a_polygon_beyond_the_image_fits_a_box_that_ends_there():
    assert judge([[150, 50, 50, 50]], [[150, 50, 200, 300]]) == ([], set())


def to_other(name, bbox):
    x, y, width, height = bbox
    return {
        "corners": [x, y, x + width, y + height],
        "centres": [x + width / 2, y + height / 2, width, height],
        "transposed": [y, x, height, width],
        "normalised": [x / 200, y / 100, width / 200, height / 100],
        "upside down": [x, 100 - y - height, width, height],
        "scaled": [2 * x, 2.5 * y, 2 * width, 2.5 * height],
        "empty": [x, y, 0, 0],
    }[name]


LOOKS = {
    "corners": "look [x1, y1, x2, y2] in place of [x, y, width, height]. Annotation",
    "centres": "look [x centre, y centre, width, height] in place of [x, y, width, height]. Annotation",
    "transposed": "look [y, x, height, width] in place of [x, y, width, height]. Annotation",
    "upside down": "look measured from the lower edge of the image, in place of the upper. Annotation",
    "scaled": "look scaled (the segmentation is 0.5 times as wide and 0.4 times as high; medians). Annota",
    "empty": "look empty. Annotation",
}


@pytest.mark.parametrize("name", LOOKS)
def test_boxes_in_another_format_are_always_an_error(name):
    with pytest.raises(ValueError) as error:
        judge([to_other(name, bbox) for bbox in BOXES], BOXES)
    assert str(error.value).startswith("a.json: bbox does not fit the segmentation in ")
    assert LOOKS[name] in str(error.value)


def test_the_message_has_counts_and_an_example():
    with pytest.raises(ValueError) as error:
        judge([to_other("corners", bbox) for bbox in BOXES], BOXES)
    assert str(error.value) == (
        "a.json: bbox does not fit the segmentation in 10 of 10 annotations: 10 look [x1, y1, x2, y2] in "
        "place of [x, y, width, height]. Annotation 1 of image 3: bbox [60, 30, 80, 42] does not fit its "
        "segmentation, which spans x 60 to 80 and y 30 to 42 (IoU 0.07)"
    )


def test_normalised_segmentations_are_an_error():
    masks = [to_other("normalised", bbox) for bbox in BOXES]
    with pytest.raises(
        ValueError, match="10 look in pixels, but the segmentation is normalised to between 0"
    ):
        judge(BOXES, masks)


@pytest.mark.parametrize("masks", [BOXES, [None] * 10])
def test_normalised_boxes_are_an_error_with_masks_or_without(masks):
    boxes = [to_other("normalised", bbox) for bbox in BOXES]
    with pytest.raises(ValueError) as error:
        judge(boxes, masks)
    assert str(error.value) == (
        "a.json: bbox looks normalised to between 0 and 1, in place of pixels: 10 of 10 lie within the first "
        "pixel"
    )
    with pytest.raises(ValueError, match="looks normalised"):
        judge(boxes, [to_other("normalised", bbox) for bbox in BOXES])  # the masks are, too
    assert judge([[0, 0, 1, 1]] * 10, [None] * 10, size=(20, 20)) == ([], set())


def test_corners_are_recognised_without_masks():
    boxes = [[90 + i, 45, 140 + i, 80] for i in range(10)]
    with pytest.raises(ValueError) as error:
        judge(boxes, [None] * 10)
    assert str(error.value) == (
        "a.json: bbox looks [x1, y1, x2, y2] in place of [x, y, width, height]: 10 of 10 would end outside "
        "their image"
    )
    # One that cannot be corners, as its second would be left of its first.
    assert judge([*boxes, [90, 45, 80, 20]], [None] * 11) == ([], set())


@pytest.mark.parametrize("beyond", [1, 2])
def test_corners_that_are_mostly_inside_the_image_are_recognised_by_the_others(beyond):
    boxes = [[20, 10, 60, 40]] * (10 - beyond) + [[90, 45, 140, 80]] * beyond
    if beyond == 1:  # one in ten may be a box that reaches beyond its image
        assert judge(boxes, [None] * 10) == ([], set())
    else:
        with pytest.raises(ValueError, match="2 of 10 would end outside their image"):
            judge(boxes, [None] * 10)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("outside", [2, 3, 10, 11])
def test_boxes_of_images_of_another_size_are_outside_the_images(masks, outside):
    """Boxes and masks agree; a tenth of the boxes, or two, may be of objects cut by the image's edge."""
    boxes = [[150, 80, 110, 10]] * outside + [[100, 20, 30, 10]] * (20 - outside)
    wanted = (
        f"bbox has its centre outside the image in {outside} of 20 annotations; they look as if made for "
        "images of another size. Annotation 1 of image 3: bbox [150, 80, 110, 10] in an image of 200 x 100 "
        "(width x height)"
    )
    both = boxes, boxes if masks else [None] * 20
    if outside == 11:
        with pytest.raises(ValueError) as error:
            judge(*both)
        assert str(error.value) == f"a.json: {wanted}"
    else:
        findings, left_out = judge(*both)
        assert [(finding.rule, finding.warning) for finding in findings] == [(wanted, True)] * (outside > 2)
        assert left_out == set()


def test_boxes_of_smaller_images_or_in_percent_end_near_the_upper_left_corner():
    boxes = [[x, y, 20, 20] for x in range(0, 80, 20) for y in range(0, 80, 16)]
    (finding,), _ = judge(boxes, boxes, size=(500, 1000))
    assert finding.warning and finding.rule == (
        "all 20 boxes end within the first 8 % of the width and 17 % of the height of their images; they "
        "look as if made for smaller images, or given in percent"
    )
    assert judge(boxes, boxes, size=(160, 160))[0] == []
    assert judge(boxes[1:], boxes[1:], size=(500, 1000))[0] == []
    assert judge([*boxes, [700, 0, 9, 9]], [*boxes, [700, 0, 9, 9]], size=(500, 1000))[0] == []


def test_large_objects_that_reach_beyond_their_image_are_no_corners():
    assert judge([[-20, -20, 260, 160], [2, 2, 230, 130], [1, 1, 205, 102]] * 4, [None] * 12) == ([], set())


def test_few_misfits_are_warnings_each():
    boxes = [list(bbox) for bbox in BOXES * 2]
    boxes[4], boxes[7] = to_other("scaled", boxes[4]), [0, 0, 10, 10]
    findings, left_out = judge(boxes, BOXES * 2)
    assert left_out == set() and [finding.annotation_id for finding in findings] == [5, 8]
    assert [finding.rule for finding in findings] == [
        "bbox [176, 115.0, 64, 40.0] does not fit its segmentation, which spans x 88 to 120 and y 46 to 62 "
        "(IoU 0.00): it looks scaled; kept as it is",
        "bbox [0, 0, 10, 10] does not fit its segmentation, which spans x 109 to 150 and y 58 to 77 "
        "(IoU 0.00): it looks of another object or image; kept as it is",
    ]
    assert all(finding.warning and finding.image_id == 3 for finding in findings)


def test_many_misfits_are_one_error_and_left_out():
    boxes = [to_other("scaled", bbox) if row < 3 else bbox for row, bbox in enumerate(BOXES)]
    boxes[9] = [0, 0, 10, 10]
    (finding,), left_out = judge(boxes, BOXES)
    assert not finding.warning and (finding.image_id, finding.annotation_id) == (None, None)
    assert left_out == {1, 2, 3, 10}
    assert finding.rule.startswith(
        "bbox does not fit the segmentation in 4 of 10 annotations: 3 look scaled (the segmentation is 0.5 "
        "times as wide and 0.4 times as high; medians); 1 look of another object or image. Annotation 1 of"
    )


def test_boxes_of_whole_objects_with_masks_of_visible_parts_are_warnings():
    boxes = [[x - 50, y - 20, width + 52, height + 23] for x, y, width, height in BOXES]
    (finding,), left_out = judge(boxes, BOXES)
    assert finding.warning and left_out == set()
    assert finding.rule == (
        "bbox is much larger than the segmentation in 10 of 10 annotations; kept as they are; the first is "
        "annotation 1 of image 3"
    )
    findings, _ = judge(boxes[:2], BOXES[:2])
    assert [finding.annotation_id for finding in findings] == [1, 2]
    assert findings[0].rule.endswith(": it is much larger than the segmentation; kept as it is")


def test_objects_without_masks_are_warnings_if_others_have_some():
    assert judge(BOXES, [None] * 10) == ([], set())
    findings, _ = judge(BOXES, [None, *BOXES[1:9], None])
    assert [(x.image_id, x.annotation_id, x.warning) for x in findings] == [(3, 1, True), (3, 10, True)]
    assert findings[0].rule == "has no segmentation, while others have; only its box is trained on"
    (finding,), _ = judge(BOXES, [None] * 6 + BOXES[6:])
    assert finding.rule == (
        "6 of 10 objects have no segmentation; only their boxes are trained on; the first is annotation 1 of "
        "image 3"
    )


def test_misfits_are_left_out_of_a_dataset_and_crowds_are_not_compared(folder):
    image = folder.add_image(np.zeros((100, 200, 3), np.uint8))
    for bbox in BOXES:
        folder.add_object(image, bbox=bbox, segmentation=[polygon(*bbox)[0].ravel().tolist()], keypoints=[])
    crowd = {"size": [100, 200], "counts": [0, 100, 19900]}
    folder.add_object(image, bbox=BOXES[0], segmentation=crowd, iscrowd=1, keypoints=[])
    assert read_coco(**folder.write()).findings == ()
    for entry in folder.content["annotations"][:3]:
        entry["bbox"] = [0, 0, 10, 10]
    with pytest.raises(ValueError, match=r"instances\.json: 1 error .*\n.*\n.*json +- +-  bbox does not fit"):
        read_coco(**folder.write())
    dataset = read_coco(**folder.write(), skip_bad=True)
    assert [item.id for item in dataset.images[0].annotations] == list(range(4, 12))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "split", "images"),
    [("coco_mini", "train2017", 80), ("coco_mini", "val2017", 79), ("balloon", "train", 61)],
)
def test_nothing_is_found_in_real_data(name, split, images):
    dataset = read_coco(DATA / name, images=split, annotations=f"annotations/instances_{split}.json")
    assert len(dataset.images) == images and dataset.findings == ()
