import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.rle import Rle


def square(top, left, *, value=1):
    values = np.zeros((10, 20), np.uint8)
    values[top : top + 2, left : left + 3] = value
    return values


def masks_of(content):
    return [Rle.from_json(item["segmentation"]).decode() for item in content["annotations"]]


def test_penn_fudan(tmp_path, save, converted):
    values = square(1, 2) + square(5, 10, value=2)
    values[9, 19] = 2  # an object in two parts
    save("PennFudanPed/PNGImages/FudanPed00001.png")
    save("PennFudanPed/PedMasks/FudanPed00001_mask.png", values)
    save("PennFudanPed/Annotation/FudanPed00001.txt", "# Compatible with PASCAL Annotation Version 1.00")
    _, content, _ = converted(tmp_path / "PennFudanPed", category="pedestrian")
    assert content["images"][0]["file_name"] == "PNGImages/FudanPed00001.png"
    assert content["categories"] == [{"id": 1, "name": "pedestrian"}]
    first, second = content["annotations"]
    assert (first["bbox"], first["area"]) == ([2, 1, 3, 2], 6)
    assert (second["bbox"], second["area"]) == ([10, 5, 10, 5], 7)
    for mask, value in zip(masks_of(content), (1, 2), strict=True):
        assert (mask == (values == value)).all()


def test_a_mask_per_object(tmp_path, save, converted):
    for name in ("a", "a_1", "b", "c", "d"):
        save(f"data/images/{name}.jpg")
    save("data/masks/a_0.png", square(1, 2, value=255))
    save("data/masks/a_1.png", square(3, 2, value=7))  # of the image a_1
    save("data/masks/a_mask_2.png", Image.fromarray(square(5, 2, value=255)).convert("RGB"))
    save("data/masks/b/whatever.png", square(1, 5, value=1) + square(4, 5, value=2))  # one object
    save("data/masks/c.png", np.zeros((10, 20), np.uint8))
    builder, content, dataset = converted(tmp_path / "data", category="cell")
    names = [item["file_name"].removeprefix("images/") for item in content["images"]]
    assert names == ["a.jpg", "a_1.jpg", "b.jpg", "c.jpg"]
    assert [len(item.annotations) for item in dataset.images] == [2, 1, 1, 0]
    assert [item["bbox"] for item in content["annotations"]] == [
        [2, 1, 3, 2], [2, 5, 3, 2], [2, 3, 3, 2], [5, 1, 3, 5],
    ]  # fmt: skip
    assert builder.left_out == {"images without a mask: they may have objects": 1}


def test_the_border_in_vocs_folder_is_no_object(tmp_path, save, converted):
    values = square(1, 2) + square(5, 2, value=255)
    for folder in ("SegmentationObject", "masks"):
        save(f"{folder}/JPEGImages/a.jpg")
        save(f"{folder}/{folder}/a.png", values)
    _, content, _ = converted(tmp_path / "SegmentationObject", category="thing")
    assert [item["bbox"] for item in content["annotations"]] == [[2, 1, 3, 2]]
    _, content, _ = converted(tmp_path / "masks", category="thing")
    assert len(content["annotations"]) == 2


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_left_out(tmp_path, save, converted, mode):
    save("data/images/a.jpg")
    mask = Image.fromarray(square(1, 2) + square(5, 2, value=2)).convert(mode)
    mask.putalpha(Image.fromarray(square(5, 2, value=9)))
    save("data/masks/a.png", mask)
    _, content, _ = converted(tmp_path / "data", category="cell")
    assert [item["bbox"] for item in content["annotations"]] == [[2, 1, 3, 2], [2, 5, 3, 2]]


def test_a_folder_per_image_and_16_bits(tmp_path, save, converted):
    save("stage1_train/0b1/images/0b1.png")
    save("stage1_train/0b1/masks/x.png", square(1, 2, value=255))
    save("stage1_train/0b1/masks/y.png", square(5, 2, value=255))
    _, content, _ = converted(tmp_path / "stage1_train", category="nucleus")
    assert content["images"][0]["file_name"] == "0b1/images/0b1.png"
    assert [item["bbox"] for item in content["annotations"]] == [[2, 1, 3, 2], [2, 5, 3, 2]]

    save("photos/a.jpg")
    save("maps/a.png", square(1, 2).astype(np.uint16) * 26001 + square(5, 2).astype(np.uint16) * 26002)
    _, content, _ = converted(
        tmp_path / "maps", format="masks", images=str(tmp_path / "photos"), category="car"
    )
    assert content["images"][0]["file_name"] == "a.jpg"
    assert [item["bbox"] for item in content["annotations"]] == [[2, 1, 3, 2], [2, 5, 3, 2]]


def test_all_problems_are_listed(tmp_path, save, rules):
    for name in ("a", "b", "c", "d", "e"):
        save(f"data/images/{name}.jpg")
    save("data/masks/a.png", square(1, 2)[:5])
    save("data/masks/b.png", square(1, 2))
    save("data/masks/b_mask.png", square(1, 2))
    save("data/masks/c.png", np.tile(np.uint8([[[1, 2, 3]]]), (10, 20, 1)))
    save("data/masks/d.png", "no image")
    save("data/masks/e.png", np.arange(56, 256, dtype=np.uint8).reshape(10, 20))
    save("data/masks/z.png", square(1, 2))
    beginnings = (
        "z.png: there is no image for this mask in ",
        "a.png: must have the size of image 'images/a.jpg', 20 x 10, got 20 x 5",
        "b.jpg: has masks by more than one naming rule: b.png, b_mask.png",
        "c.png: a mask must have one channel, or equal ones; this one has colours",
        "d.png: cannot be read as a PNG, TIFF, BMP or GIF",
        "e.png: has 200 values up to 255, like a picture with soft edges",
    )
    found = rules(tmp_path / "data", category="cell")
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule
    with pytest.raises(ValueError, match="masks do not say what the objects are; --category=NAME does"):
        rules(tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"has no folder of images \(PNGImages, .*\) and none of masks \(Ped"
    ):
        rules(tmp_path / "data" / "images", format="masks", category="cell")
    save("data/images/a.png")
    with pytest.raises(ValueError, match="2 images are called 'a', so their masks are ambiguous"):
        rules(tmp_path / "data", category="cell")


def test_an_image_whose_masks_cannot_be_read_is_left_out(tmp_path, save, kept):
    for name in ("a", "b", "c", "d"):
        save(f"data/images/{name}.jpg")
    save("data/masks/a.png", "no image")
    save("data/masks/b/1.png", "no image")
    save("data/masks/b/2.png", square(1, 2)[:5])
    save("data/masks/c/1.png", "no image")  # one object of two
    save("data/masks/c/2.png", square(1, 2))
    save("data/masks/d.png", square(1, 2) + square(5, 2, value=2))
    assert kept(tmp_path / "data", category="cell") == (["images/c.jpg", "images/d.jpg"], 3)
