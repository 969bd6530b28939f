import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_jax.data.rle import Rle, encode_rle


def test_runs_go_down_the_columns():
    bitmap = np.array([[0, 1, 1], [0, 0, 1]], bool)  # columns 00, 10, 11
    assert encode_rle(bitmap) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    np.testing.assert_array_equal(Rle.from_json(encode_rle(bitmap)).decode(), bitmap)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_both_forms_agree_with_pycocotools(share):
    bitmap = np.random.default_rng(0).random((137, 211)) < share
    encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    compressed = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(Rle.from_json(compressed).decode(), bitmap)
    np.testing.assert_array_equal(Rle.from_json(encode_rle(bitmap)).decode(), bitmap)
    assert coco_mask.frPyObjects(encode_rle(bitmap), 137, 211) == encoded


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], r"sum to height \* width \(2 \* 3\)"),
        ([8, -2], "must be >= 0"),
        ("", "not a complete string"),
        ("PPPP", "not a complete string"),  # each character says that more follow
        ("\x01", "not a complete string"),
        ("P" * 20 + "0", "a number that is too large"),
        ("ooooooooooo0", "sum to height"),
        (None, "needs counts"),
        ([1.5, 4.5], "needs counts"),
    ],
)
def test_broken_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        Rle.from_json({"size": [2, 3], "counts": counts})
