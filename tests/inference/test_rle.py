import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.rle import decode_rle, encode_rle


def full(pasted: PastedMask, image_size: tuple[int, int]) -> np.ndarray:
    bitmap = np.zeros(image_size, bool)
    pasted.write(bitmap)
    return bitmap


def reference(pasted: PastedMask, image_size: tuple[int, int]) -> str:
    return mask_utils.encode(np.asfortranarray(full(pasted, image_size).astype(np.uint8)))["counts"].decode()


def test_by_hand() -> None:
    # Column by column: 3 zeros, 2 ones (the rest of the second column), 1 zero: the digits 3, 2, 1.
    pasted = PastedMask(top=1, left=1, mask=np.array([[True]]))
    assert encode_rle(pasted, (2, 3)) == {"size": [2, 3], "counts": "312"}
    # 0 zeros, then 40 ones: 40 is 8 + 32, so the groups 8 (more follow: + 32) and 1.
    pasted = PastedMask(top=0, left=0, mask=np.ones((8, 5), bool))
    assert encode_rle(pasted, (8, 5))["counts"] == "0" + chr(48 + 8 + 32) + "1"


def test_equals_pycocotools_on_random_crops() -> None:
    rng = np.random.default_rng(0)
    for trial in range(600):
        height, width = rng.integers(1, 40, 2).tolist()
        # Every third crop is as high as the image: there runs go on from column to column.
        rows = height if trial % 3 == 0 else int(rng.integers(0, height + 1))
        columns = int(rng.integers(0, width + 1))
        density = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        pasted = PastedMask(
            top=int(rng.integers(0, height - rows + 1)),
            left=int(rng.integers(0, width - columns + 1)),
            mask=rng.random((rows, columns)) < density,
        )
        rle = encode_rle(pasted, (height, width))
        assert rle["counts"] == reference(pasted, (height, width))
        np.testing.assert_array_equal(decode_rle(rle), full(pasted, (height, width)))


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (60, 50)])
def test_all_of_the_image(size: tuple[int, int], value: bool) -> None:
    pasted = PastedMask(0, 0, np.full(size, value))
    assert encode_rle(pasted, size)["counts"] == reference(pasted, size)
    assert (decode_rle(encode_rle(pasted, size)) == value).all()


def test_long_runs() -> None:
    """Numbers of several groups, and differences below zero of as many."""
    mask = np.zeros((3000, 40), bool)
    mask[100:2900, [3, 4, 30]] = True
    mask[5, 35] = True
    pasted = PastedMask(900, 1500, mask)
    assert encode_rle(pasted, (4000, 3000))["counts"] == reference(pasted, (4000, 3000))


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (3, 0), (0, 3)])
def test_crop_outside_the_image_is_an_error(top: int, left: int) -> None:
    with pytest.raises(ValueError, match="does not lie inside an image of 4 x 4 pixels"):
        encode_rle(PastedMask(top, left, np.ones((2, 2), bool)), (4, 4))


@pytest.mark.parametrize("counts", ["", "3", "312", "~", "P", "é", "00000000000000000000P1"])
def test_text_that_is_no_mask_is_an_error(counts: str) -> None:
    with pytest.raises(ValueError, match="run"):
        decode_rle({"size": [2, 2], "counts": counts})
