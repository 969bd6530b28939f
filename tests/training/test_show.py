import dataclasses

import numpy as np
import pytest

from mrcnn_jax.inference import fonts
from mrcnn_jax.inference.draw import COLORS
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.training.show import caption_batch, contact_sheet, draw_batch
from mrcnn_jax.types import Batch, GroundTruth

CATEGORIES = Categories(
    ids=(3, 7),
    names=("ball", "figure"),
    keypoint_labels=(2,),
    keypoint_names=("head", "left_foot", "right_foot"),
    skeleton=((0, 1), (0, 2)),
)


@pytest.fixture
def batch() -> Batch:
    """An image of 240x320 on a canvas of 320x320, drawn at 640x640: a figure, and an invalid row.

    The figure's mask is the lower half of a box that begins left of the image.
    """
    mask = np.zeros((28, 28), np.uint8)
    mask[14:] = 1
    return Batch(
        images=np.full((1, 320, 320, 3), 50, np.uint8),
        image_sizes=np.array([[240, 320]], np.int32),
        ids=np.array([9]),
        gt=GroundTruth(
            boxes=np.array([[[0, 50, 100, 150], [200, 20, 300, 120]]], np.float32),
            labels=np.array([[2, 0]], np.int32),
            crowd=np.zeros((1, 2), bool),
            valid=np.array([[True, False]]),
            masks=np.stack([mask, mask])[None],
            mask_boxes=np.array([[[-100, 50, 100, 150], [200, 20, 300, 120]]], np.float32),
            keypoints=np.array([[[[50, 60, 2], [50, 90, 1], [0, 0, 0]], [[0, 0, 0]] * 3]], np.float32),
        ),
    )


def test_box_mask_and_padding_by_hand(batch: Batch) -> None:
    (picture,) = draw_batch(batch, CATEGORIES)
    assert picture.shape == (640, 640, 3)
    color = np.array(COLORS[0])
    assert (picture[104:300, 199] == color).all() and (picture[299, :200] == color).all()  # the box's edges
    np.testing.assert_allclose(picture[250, 100], 0.4 * color + 0.6 * 50, atol=1)  # the lower half
    assert (picture[130:170, 150] == 50).all()  # the upper half
    assert (picture[:480, 210:] == 50).all()  # the invalid row
    assert (picture[480:] != 50).all() and len(np.unique(picture[480:])) == 4  # checks of two colours


def test_keypoints_without_a_place_are_left_out(batch: Batch) -> None:
    without = dataclasses.replace(batch, gt=dataclasses.replace(batch.gt, keypoints=None))
    picture, bare = (draw_batch(each, CATEGORIES)[0] for each in (batch, without))
    rows, columns = np.nonzero((picture != bare).any(axis=2))
    assert abs(columns - 100).max() < 12  # the bone from head to left foot goes straight down
    assert 108 <= rows.min() <= 120 <= 180 <= rows.max() < 192


def test_crowd_is_striped_and_named(batch: Batch) -> None:
    gt = dataclasses.replace(
        batch.gt, crowd=batch.gt.valid, masks=0 * batch.gt.masks, keypoints=0 * batch.gt.keypoints
    )
    (picture,) = draw_batch(dataclasses.replace(batch, gt=gt), CATEGORIES)
    inside = (picture[120:290, 10:190] != 50).all(axis=2)
    assert 0.05 < inside.mean() < 0.3


def test_images_of_floats_and_batches_without_masks(batch: Batch) -> None:
    floats = dataclasses.replace(batch, images=batch.images + np.float32(0.25))
    np.testing.assert_array_equal(draw_batch(floats, CATEGORIES), draw_batch(batch, CATEGORIES))
    gt = dataclasses.replace(batch.gt, masks=None, mask_boxes=None, keypoints=None)
    (picture,) = draw_batch(dataclasses.replace(batch, gt=gt), CATEGORIES)
    assert picture[250, 100].tolist() == [50, 50, 50]


def test_large_canvases_are_shrunk(batch: Batch) -> None:
    images = np.full((1, 640, 1280, 3), 50, np.uint8)
    sizes = np.array([[640, 1000]], np.int32)
    (picture,) = draw_batch(dataclasses.replace(batch, images=images, image_sizes=sizes), CATEGORIES)
    assert picture.shape == (320, 640, 3)
    assert (picture[30:74, 49] == np.array(COLORS[0])).all()  # the right edge of the box, once at 100
    assert (picture[:, 499] == 50).all() and (picture[:, 500] != 50).all()


def test_sheet_by_hand() -> None:
    wide, high = np.full((300, 640, 3), 10, np.uint8), np.full((640, 300, 3), 20, np.uint8)
    sheet = contact_sheet([wide, wide, high, wide, wide], list("abcde"))
    assert sheet.shape == (8 + 22 + 640 + 8 + 22 + 300 + 8, 8 + 3 * 648 + 308, 3)
    assert (sheet[30:330, 8:648] == 10).all()
    assert (sheet[30:330, 656:1296] == 10).all() and (sheet[30:670, 1304:1604] == 20).all()
    assert (sheet[700:1000, 8:648] == 10).all()
    assert (sheet[8:30, 8:40] < 255).any()  # the caption
    assert (sheet[700:, 656:] == 255).all()


def test_captions_are_in_the_fonts_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No font has the character: it is escaped as in a label, where Pillow's own font would draw a box."""
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    picture = np.zeros((20, 640, 3), np.uint8)
    sheets = [contact_sheet([picture], [caption]) for caption in ("猫 1", r"\u732b 1", "1")]
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert (sheets[0] != sheets[2]).any()


def test_captions(batch: Batch) -> None:
    assert caption_batch(batch, 5) == ["step 5   image 9   240x320 on 320x320"]
