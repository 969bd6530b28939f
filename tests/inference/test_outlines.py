import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from mrcnn_jax.inference.outlines import signed_area, trace_outlines
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.rle import Rle


def outlines(rows: list[str], *, top: int = 0, left: int = 0) -> list[list[list[int]]]:
    """The polygons of a mask drawn with #."""
    mask = np.array([[cell == "#" for cell in row] for row in rows])
    return [polygon.tolist() for polygon in trace_outlines(PastedMask(top=top, left=left, mask=mask))]


def filled(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie in an odd number of polygons, counted along each row."""
    inside = np.zeros((height, width), bool)
    centres = np.arange(height) + 0.5
    for polygon in polygons:
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            assert (x1 == x2) != (y1 == y2)
            if x1 == x2:
                inside[(centres > min(y1, y2)) & (centres < max(y1, y2)), x1:] ^= True
    return inside


def test_by_hand() -> None:
    assert outlines(["#"], top=5, left=7) == [[[7, 5], [8, 5], [8, 6], [7, 6]]]
    assert outlines(["##.", "#.."]) == [[[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]]
    ring = [[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]
    assert outlines(["###", "#.#", "###"]) == list(ring)


@pytest.mark.parametrize("rows", [["#.", ".#"], [".#", "#."]])
def test_pixels_that_touch_at_a_corner_are_apart(rows: list[str]) -> None:
    polygons = outlines(rows)
    assert [len(polygon) for polygon in polygons] == [4, 4]
    assert [signed_area(np.array(polygon)) for polygon in polygons] == [1, 1]


def test_no_mask_has_no_outline() -> None:
    assert outlines(["..", ".."]) == []
    assert trace_outlines(PastedMask(top=0, left=0, mask=np.zeros((0, 0), bool))) == []


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_filling_the_outlines_gives_the_mask(rng: np.random.Generator, density: float) -> None:
    for height, width in ((1, 9), (9, 1), (7, 8), (30, 40)):
        mask = rng.random((height, width)) < density
        polygons = trace_outlines(PastedMask(top=2, left=3, mask=mask))
        expected = np.pad(mask, ((2, 0), (3, 0)))
        np.testing.assert_array_equal(filled(polygons, height + 2, width + 3), expected)
        assert sum(signed_area(polygon) for polygon in polygons) == mask.sum()


def test_outer_outlines_cover_the_mask(rng: np.random.Generator) -> None:
    mask = rng.random((40, 50)) < 0.8
    polygons = trace_outlines(PastedMask(top=0, left=0, mask=mask))
    outer = [polygon for polygon in polygons if signed_area(polygon) > 0]
    holes = [polygon for polygon in polygons if signed_area(polygon) < 0]
    assert outer and holes and len(outer) + len(holes) == len(polygons)
    covered = np.any([filled([polygon], 40, 50) for polygon in outer], axis=0)
    assert covered[mask].all() and not covered.all()


def test_cocos_rasteriser_gives_the_mask_back() -> None:
    """For an object of several parts without holes, as labelling tools import it."""
    picture = Image.new("L", (60, 50))
    pencil = ImageDraw.Draw(picture)
    pencil.ellipse((3, 4, 40, 30), fill=1)
    pencil.polygon([(20, 35), (30, 20), (55, 40), (55, 48)], fill=1)
    pencil.rectangle((50, 2, 57, 9), fill=1)
    mask = np.asarray(picture).astype(bool)
    polygons = trace_outlines(PastedMask(top=0, left=0, mask=mask))
    assert len(polygons) == 2
    rles = coco_mask.frPyObjects([polygon.ravel().astype(float).tolist() for polygon in polygons], 50, 60)
    merged = coco_mask.merge(rles)
    found = Rle.from_json({"size": merged["size"], "counts": merged["counts"].decode()})
    np.testing.assert_array_equal(found.decode(), mask)
