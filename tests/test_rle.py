from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from mrcnn_jax.rle import Rle


def reference(bitmap: np.ndarray) -> dict[str, Any]:
    """The mask as encoded by pycocotools, with JSON types."""
    encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def from_crop(crop: np.ndarray, top: int, left: int, image_size: tuple[int, int]) -> tuple[Rle, np.ndarray]:
    """The RLE of a crop, and the bitmap of the whole image."""
    bitmap = np.zeros(image_size, bool)
    bitmap[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return Rle.from_crop(crop, top=top, left=left, image_size=image_size), bitmap


def test_runs_go_down_the_columns() -> None:
    bitmap = np.array([[0, 1, 1], [0, 0, 1]], bool)  # columns 00, 10, 11
    rle = Rle.from_bitmap(bitmap)
    assert rle.uncompressed() == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    np.testing.assert_array_equal(rle.decode(), bitmap)
    np.testing.assert_array_equal(Rle.from_bitmap(bitmap.astype(np.uint8)).decode(), bitmap)


def test_text_by_hand() -> None:
    # Column by column: 3 zeros, 1 one, 2 zeros: the digits 3, 1, 2.
    rle, _ = from_crop(np.array([[True]]), 1, 1, (2, 3))
    assert rle.compressed() == {"size": [2, 3], "counts": "312"}
    # 0 zeros, then 40 ones: 40 is 8 + 32, so the groups 8 (more follow: + 32) and 1.
    assert Rle.from_bitmap(np.ones((8, 5), bool)).compressed()["counts"] == "0" + chr(48 + 8 + 32) + "1"
    # The fourth run, of 1, is two shorter than the second: -2 is 30 in five bits with the sign.
    bitmap = np.array([[1, 1, 1, 0, 1, 0]], bool)
    assert Rle.from_bitmap(bitmap).uncompressed()["counts"] == [0, 3, 1, 1, 1]
    assert Rle.from_bitmap(bitmap).compressed()["counts"] == "031" + chr(48 + 30) + "0"


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_both_forms_agree_with_pycocotools(density: float) -> None:
    bitmap = np.random.default_rng(0).random((137, 211)) < density
    rle = Rle.from_bitmap(bitmap)
    encoded = reference(bitmap)
    assert rle.compressed() == encoded
    assert coco_mask.frPyObjects(rle.uncompressed(), 137, 211)["counts"].decode() == encoded["counts"]
    for form in (rle.compressed(), rle.uncompressed()):
        np.testing.assert_array_equal(Rle.from_json(form).decode(), bitmap)


def test_random_crops_equal_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for trial in range(600):
        height, width = rng.integers(1, 40, 2).tolist()
        # Every third crop is as tall as the image, so that runs continue from column to column.
        rows = height if trial % 3 == 0 else int(rng.integers(0, height + 1))
        columns = int(rng.integers(0, width + 1))
        density = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        rle, bitmap = from_crop(
            rng.random((rows, columns)) < density,
            int(rng.integers(0, height - rows + 1)),
            int(rng.integers(0, width - columns + 1)),
            (height, width),
        )
        assert rle.compressed() == reference(bitmap)
        assert rle.counts.dtype == np.int64
        np.testing.assert_array_equal(Rle.from_json(rle.compressed()).decode(), bitmap)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (60, 50)])
def test_constant_masks(size: tuple[int, int], value: bool) -> None:
    bitmap = np.full(size, value)
    encoded = Rle.from_bitmap(bitmap).compressed()
    assert encoded == reference(bitmap)
    assert (Rle.from_json(encoded).decode() == value).all()


def test_long_runs() -> None:
    """Numbers and negative differences that need several groups."""
    crop = np.zeros((3000, 40), bool)
    crop[100:2900, [3, 4, 30]] = True
    crop[5, 35] = True
    rle, bitmap = from_crop(crop, 900, 1500, (4000, 3000))
    assert rle.compressed() == reference(bitmap)
    np.testing.assert_array_equal(Rle.from_json(rle.compressed()).counts, rle.counts)


@pytest.mark.parametrize(
    ("counts", "crop", "place"),
    [
        ([2, 1, 1, 2], [[1, 1], [0, 1]], (0, 1)),
        ([6], np.zeros((0, 0)), (0, 0)),
        ([0, 6], np.ones((2, 3)), (0, 0)),
        ([3, 1, 2], [[1]], (1, 1)),
        ([1, 0, 2, 1, 2, 0], [[1]], (1, 1)),  # runs without a pixel
        ([5, 1], [[1]], (1, 2)),
    ],
)
def test_to_crop_by_hand(counts: list[int], crop: Any, place: tuple[int, int]) -> None:
    found, top, left = Rle(2, 3, np.array(counts)).to_crop()
    np.testing.assert_array_equal(found, crop)
    assert (top, left) == place


@settings(max_examples=100, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_to_crop_undoes_from_crop(bitmap: np.ndarray) -> None:
    found, top, left = Rle.from_bitmap(bitmap).to_crop()
    _, restored = from_crop(found, top, left, bitmap.shape)
    np.testing.assert_array_equal(restored, bitmap)
    if bitmap.any():
        assert found[0].any() and found[-1].any() and found[:, 0].any() and found[:, -1].any()


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (3, 0), (0, 3)])
def test_crop_outside_the_image_is_an_error(top: int, left: int) -> None:
    with pytest.raises(ValueError, match="does not lie inside an image of 4 x 4 pixels"):
        Rle.from_crop(np.ones((2, 2), bool), top=top, left=left, image_size=(4, 4))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], r"sum to height \* width \(2 \* 3\)"),
        ([], "sum to height"),
        ([8, -2], "must be >= 0"),
        ([10**30], "sum to height"),
        ([2**63 - 1, 2**63 - 1, 8], "sum to height"),  # 6 in an int64
        ("3", "sum to height"),
        ("3121", "sum to height"),
        ("", "not a complete string"),
        ("P", "not a complete string"),
        ("PPPP", "not a complete string"),  # each character says that more groups follow
        ("\x01", "not a complete string"),
        ("~", "not a complete string"),
        ("é", "not a complete string"),
        ("\ud800", "not a complete string"),
        ("P" * 20 + "0", "a number that is too large: 'PPP"),
        ("00000000000000000000P1", "sum to height"),
        ("ooooooooooo0", "sum to height"),
        (None, "needs counts"),
        ([1.5, 4.5], "needs counts"),
        ([True] * 6, "needs counts"),
        (b"312", "needs counts"),
    ],
)
def test_invalid_counts_are_an_error(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rle.from_json({"size": [2, 3], "counts": counts})


@pytest.mark.parametrize(
    "size", [None, 6, [6], [2, 3, 1], [2.0, 3], ["2", "3"], [0, 6], [-2, -3], [2**40, 2**40], [True, 6]]
)
def test_invalid_sizes_are_an_error(size: Any) -> None:
    with pytest.raises(
        ValueError, match=r"needs a size \[height, width\], got .*; both must be integers from 1"
    ):
        Rle.from_json({"size": size, "counts": [6]})


def test_a_mask_larger_than_any_image_is_not_decoded():
    rle = Rle.from_json({"size": [10**9, 10**9], "counts": [10**18]})
    with pytest.raises(ValueError, match="1000000000 x 1000000000 pixels is too large"):
        rle.decode()
