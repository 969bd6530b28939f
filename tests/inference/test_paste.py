from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.inference.paste import PastedMask, paste_mask

FIXTURE = Path(__file__).parents[1] / "fixtures" / "torchvision_paste.npz"


def on_image(pasted: PastedMask, image_size: tuple[int, int]) -> np.ndarray:
    bitmap = np.zeros(image_size, bool)
    pasted.write(bitmap)
    return bitmap


def box(*edges: float) -> np.ndarray:
    return np.array(edges, np.float32)


def test_by_hand() -> None:
    # Two rows of two cells of 2 x 2 pixels, over columns 2 to 5 and rows 1 to 4; the left cells are 1. Along
    # x the mask is 3/4 in column 2 (it fades to 0 half a cell outside the box), 3/4 in column 3, 1/4 in
    # column 4; along y it is 3/4 in row 1, 1 in rows 2 and 3, 3/4 in row 4. Their product is the probability.
    mask = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    expected = np.zeros((8, 8), bool)
    expected[2:4, 2:4] = True
    np.testing.assert_array_equal(on_image(paste_mask(mask, box(2, 1, 6, 5), (8, 8), 0.75), (8, 8)), expected)
    expected[[1, 4], 2:4] = True  # 9/16
    np.testing.assert_array_equal(on_image(paste_mask(mask, box(2, 1, 6, 5), (8, 8), 0.5), (8, 8)), expected)
    expected[2:4, [1, 4]] = True  # a quarter, outside the box too
    np.testing.assert_array_equal(on_image(paste_mask(mask, box(2, 1, 6, 5), (8, 8), 0.25), (8, 8)), expected)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_equals_grid_sample(threshold: float) -> None:
    fixture = np.load(FIXTURE)
    image_size = tuple(fixture["image_size"].tolist())
    shape = (len(fixture["masks"]), *image_size)
    expected, near = (
        np.unpackbits(fixture[f"{name}_{threshold}"], count=np.prod(shape)).reshape(shape).astype(bool)
        for name in ("sampled", "near")
    )
    found = np.stack(
        [
            on_image(paste_mask(mask, box, image_size, threshold), image_size)
            for mask, box in zip(fixture["masks"], fixture["boxes"], strict=True)
        ]
    )
    assert expected.mean() > 0.05 and near.mean() < 0.01
    np.testing.assert_array_equal(found[~near], expected[~near])


def test_torchvision_by_hand() -> None:
    # A mask of one cell of 1, in a box from 2 to 4 along x and from 1 to 4 along y. Padding it with a cell of
    # zeros makes the box three times as large, columns 0 to 6 and rows -2 to 7: 3 x 3 cells over 7 x 10
    # pixels. Along x the mask is 1 in column 3, 4/7 in columns 2 and 4, 1/7 in 1 and 5; along y it is .85 in
    # rows 2 and 3, .55 in 1 and 4, .25 in 0 and 5. The product is the probability.
    expected = np.zeros((8, 8), bool)
    expected[1:5, 3] = True
    expected[2:4, 2:5] = True  # .85 * 4 / 7 = .486
    pasted = paste_mask(np.ones((1, 1), np.float32), box(2, 1, 4, 4), (8, 8), 0.4, rule="torchvision")
    np.testing.assert_array_equal(on_image(pasted, (8, 8)), expected)


def test_torchvision_probability_must_exceed_the_threshold() -> None:
    settings = {"image_size": (8, 8), "threshold": 1.0}
    ones = np.ones((3, 3), np.float32)
    assert not paste_mask(ones, box(0, 0, 8, 8), rule="torchvision", **settings).mask.any()
    assert paste_mask(ones, box(0, 0, 8, 8), **settings).mask.any()


@pytest.mark.parametrize(("boxes", "bitmaps"), [("boxes", "torchvision"), ("beyond", "torchvision_beyond")])
def test_equals_torchvision(boxes: str, bitmaps: str) -> None:
    """Every pixel is equal; ``beyond`` has boxes smaller than a pixel or across the image's edge."""
    fixture = np.load(FIXTURE)
    image_size = tuple(fixture["image_size"].tolist())
    shape = (len(fixture["masks"]), *image_size)
    expected = np.unpackbits(fixture[bitmaps], count=np.prod(shape)).reshape(shape).astype(bool)
    found = np.stack(
        [
            on_image(paste_mask(mask, edges, image_size, rule="torchvision"), image_size)
            for mask, edges in zip(fixture["masks"], fixture[boxes], strict=True)
        ]
    )
    assert expected.mean() > 0.02
    np.testing.assert_array_equal(found, expected)


def test_memory_scales_with_the_box_not_the_image() -> None:
    pasted = paste_mask(np.ones((28, 28), np.float32), box(5000, 6000, 5010, 6020), (100_000, 100_000))
    assert pasted.mask.shape[0] <= 23 and pasted.mask.shape[1] <= 13
    assert pasted.mask.sum() == 10 * 20


def test_clipped_at_every_border() -> None:
    pasted = paste_mask(np.ones((28, 28), np.float32), box(-50, -50, 60, 60), (7, 9))
    assert (pasted.top, pasted.left) == (0, 0)
    assert pasted.mask.shape == (7, 9) and pasted.mask.all()


@pytest.mark.parametrize(
    ("edges", "rules"),
    [
        ((5, 5, 2, 8), ("detectron2", "torchvision")),
        ((20, 2, 30, 8), ("detectron2", "torchvision")),
        ((-9, 2, -2, 8), ("detectron2", "torchvision")),
        ((3, np.nan, 5, 5), ("detectron2", "torchvision")),
        ((3, 3, 3, 8), ("detectron2",)),  # one pixel wide in torchvision
        ((3, 3, 8, 3), ("detectron2",)),
    ],
)
def test_nothing_to_paste(edges: tuple[float, ...], rules: tuple[str, ...]) -> None:
    for rule in rules:
        pasted = paste_mask(np.ones((28, 28), np.float32), box(*edges), (10, 10), rule=rule)
        assert pasted.mask.size == 0
        assert not on_image(pasted, (10, 10)).any()


def test_image_of_one_pixel() -> None:
    assert paste_mask(np.ones((28, 28), np.float32), box(0, 0, 1, 1), (1, 1)).mask.tolist() == [[True]]


def test_threshold_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"mask threshold \(0.0\) must be above 0"):
        paste_mask(np.ones((28, 28), np.float32), box(0, 0, 1, 1), (1, 1), 0.0)


def test_another_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="mask paste is 'keras'; it must be 'detectron2' or 'torchvision'"):
        paste_mask(np.ones((28, 28), np.float32), box(0, 0, 1, 1), (1, 1), rule="keras")
