import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config, DataConfig
from mrcnn_jax.data.folders import find_layout
from mrcnn_jax.data.importers.convert import Options, convert
from mrcnn_jax.data.importers.recognise import what_it_looks_like
from mrcnn_jax.data.importers.write import write_new
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.rle import Rle

IDS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


@pytest.fixture
def add(tmp_path, save):
    """Adds an image of 20 x 10 pixels with the values of its instances, and returns its name without suffix.

    Of ``leave_out``, the files with these suffixes are not written.
    """

    def write(name, values, *, split="train", root="cityscapes", leave_out=(), labels=("road", "car")):
        city = name.partition("_")[0]
        polygons = {
            "imgHeight": values.shape[0],
            "imgWidth": values.shape[1],
            "objects": [{"label": label, "polygon": [[0, 0], [1, 0], [1, 1]]} for label in labels],
        }
        files = {
            f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png": None,
            f"gtFine/{split}/{city}/{name}_gtFine_polygons.json": polygons,
            f"gtFine/{split}/{city}/{name}_gtFine_instanceIds.png": Image.fromarray(values),
        }
        for file, content in files.items():
            if not file.endswith(tuple(leave_out)):
                save(f"{root}/{file}", content)

    return write


def scene():
    """A road with a person in two parts, two cars, a group of cars, bicycles, a caravan and a trailer."""
    values = np.full((10, 20), 7, np.uint16)
    values[0] = 1  # ego vehicle
    values[2:4, 2:5] = values[6:9, 3:4] = 24_000
    values[5:9, 6:12] = 26_000
    values[7:9, 10:14] = 26_012  # in front of the other
    values[1, 18:] = 26  # a group, in two places
    values[9, 0] = 26
    values[4, 15] = 33  # a group of one pixel
    values[5:9, 15] = 33_001  # one column
    values[2:3, 8:12] = 29_000
    values[2:3, 13:15] = 30  # a group of trailers
    return values


def test_objects_and_groups(tmp_path, add, converted):
    add("aachen_000000_000019", scene())
    builder, content, dataset = converted(tmp_path / "cityscapes", split="train")
    assert builder.images == tmp_path / "cityscapes" / "leftImg8bit" / "train"
    assert content["images"] == [
        {"id": 1, "file_name": "aachen/aachen_000000_000019_leftImg8bit.png", "height": 10, "width": 20}
    ]
    assert content["categories"] == [{"id": number, "name": name} for name, number in IDS.items()]
    found = content["annotations"]
    # In the order of the values: class id, whether a group, box, pixels.
    assert [(x["category_id"], x["iscrowd"], x["bbox"], x["area"]) for x in found] == [
        (26, 1, [0, 1, 20, 9], 3),
        (33, 1, [15, 4, 1, 1], 1),
        (24, 0, [2, 2, 3, 7], 9),
        (26, 0, [6, 5, 6, 4], 20),
        (26, 0, [10, 7, 4, 2], 8),
        (33, 0, [15, 5, 1, 4], 4),
    ]
    for item, value in zip(found, (26, 33, 24_000, 26_000, 26_012, 33_001), strict=True):
        np.testing.assert_array_equal(Rle.from_json(item["segmentation"]).decode(), scene() == value)
    assert builder.left_out == {
        "objects of class 'caravan': Cityscapes does not evaluate it": 1,
        "objects of class 'trailer': Cityscapes does not evaluate it": 1,
    }
    assert [x.crowd for x in dataset.images[0].annotations] == [True, True, False, False, False, False]
    assert dataset.categories.names == tuple(IDS)


def test_splits_and_images_without_objects(tmp_path, add, converted):
    empty = np.full((10, 20), 7, np.uint16)
    add("bochum_000000_000001", empty)
    add("aachen_000001_000019", scene())
    add("lindau_000000_000019", scene(), split="val")
    _, content, dataset = converted(tmp_path / "cityscapes", split="train")
    assert [item["file_name"] for item in content["images"]] == [
        "aachen/aachen_000001_000019_leftImg8bit.png",
        "bochum/bochum_000000_000001_leftImg8bit.png",
    ]
    assert [len(image.annotations) for image in dataset.images] == [6, 0]
    _, content, _ = converted(tmp_path / "cityscapes", split="val")
    assert [item["file_name"] for item in content["images"]] == [
        "lindau/lindau_000000_000019_leftImg8bit.png"
    ]
    _, content, _ = converted(tmp_path / "cityscapes", split="train", categories=("car", "rider"))
    assert content["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "rider"}]
    assert [item["category_id"] for item in content["annotations"]] == [1, 1, 1]


def test_training_reads_the_result(tmp_path, add):
    """Also if each archive was unpacked into a folder of its own."""
    for split, name in (("train", "aachen_000001_000019"), ("val", "lindau_000000_000019")):
        add(name, scene(), split=split)
        builder = convert(tmp_path / "cityscapes", Options(split=split))
        write_new(tmp_path / "cityscapes" / f"{split}.json", builder.content())
    fields = find_layout(tmp_path / "cityscapes")
    assert fields == {
        "train_images": "leftImg8bit/train",
        "train_annotations": "train.json",
        "val_images": "leftImg8bit/val",
        "val_annotations": "val.json",
    }
    source = open_data_source(Config(data=DataConfig(root=str(tmp_path / "cityscapes"), **fields)))
    assert all("is nearly black" in finding.rule for finding in source.findings)
    assert source.counts.sum(axis=0).tolist() == [4, 2]

    (tmp_path / "apart").mkdir()
    for name in ("gtFine", "leftImg8bit"):
        (tmp_path / "apart" / f"{name}_trainvaltest").mkdir()
        (tmp_path / "cityscapes" / name).rename(tmp_path / "apart" / f"{name}_trainvaltest" / name)
    assert len(convert(tmp_path / "apart", Options(split="val")).content()["annotations"]) == 6


def test_all_problems_are_listed(tmp_path, add, save, rules):
    good = scene()
    add("a_0", good, leave_out=("_instanceIds.png",))
    add("a_1", good, leave_out=("_polygons.json",))
    add("a_2", good, leave_out=("_leftImg8bit.png",))
    add("a_3", good)
    add("a_4", good)
    add("a_5", np.where(good == 33_001, 34_000, good).astype(np.uint16))
    add("a_6", good[:5])
    add("a_7", good)
    add("a_8", good)
    folder = "cityscapes/gtFine/train/a/"
    save(f"{folder}a_3_gtFine_polygons.json", '{"imgHeight": 10, ')
    save(f"{folder}a_4_gtFine_instanceIds.png", "no image")
    save(f"{folder}a_7_gtFine_instanceIds.png", good[:, :5])
    add("a_9", good)
    save(f"{folder}a_9_gtFine_polygons.json", {"imgHeight": 10, "imgWidth": 20})
    save(f"{folder}a_8_gtFine_polygons.json", {"imgHeight": "10", "imgWidth": 20, "objects": []})
    beginnings = (
        "a_0_gtFine_instanceIds.png: there is no such file",
        "a_1_gtFine_polygons.json: there is no such file",
        "a_2_gtFine_polygons.json: image 'a/a_2_leftImg8bit.png': there is no such file in ",
        "a_3_gtFine_polygons.json: not valid JSON at line 1",
        "a_4_gtFine_instanceIds.png: cannot be read as a PNG",
        "a_5_gtFine_instanceIds.png: value 34000 must be a class id of at most 33, or one * 1000",
        "a_6_gtFine_polygons.json: image 'a/a_6_leftImg8bit.png' has 20 x 10 pixels (width x height), but",
        "a_7_gtFine_instanceIds.png: must have the size of the image, 20 x 10, got 5 x 10",
        "a_8_gtFine_polygons.json: imgHeight must be an integer >= 1, got '10'",
        "a_9_gtFine_polygons.json: the section 'objects' is missing",
    )
    found = rules(tmp_path / "cityscapes", split="train")
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule


def test_folders_that_are_missing(tmp_path, add, rules):
    root = tmp_path / "cityscapes"
    add("a_0", scene())
    add("b_0", scene(), split="val")
    assert what_it_looks_like(root) == (
        f"looks like a Cityscapes dataset; convert it with: mrcnn-jax to_coco {root} --format=cityscapes "
        f"--output={root}/annotations.json --split=train"
    )
    with pytest.raises(ValueError, match=r"--split is missing; \S+/gtFine has train, val"):
        rules(root)
    with pytest.raises(ValueError, match=r"--split=\.\.: there is no such split; \S+/gtFine has train, val"):
        rules(root, split="..")
    (root / "gtFine" / "empty").mkdir()
    (root / "leftImg8bit" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: there are no annotations CITY/\*_gtFine_polygons\.json"):
        rules(root, split="empty")
    (root / "leftImg8bit").rename(tmp_path / "images")
    with pytest.raises(ValueError, match=r"has no folder leftImg8bit of images; --images=FOLDER names"):
        rules(root, split="train")
    assert rules(root, split="train", images=str(tmp_path / "images" / "train")) == []
    with pytest.raises(ValueError, match="has no folder gtFine of annotations"):
        rules(tmp_path / "images", split="train", format="cityscapes")


def test_an_image_whose_masks_cannot_be_read_is_left_out(tmp_path, add, save, kept):
    for name in ("a_0", "a_1", "a_2"):
        add(name, scene())
    save("cityscapes/gtFine/train/a/a_0_gtFine_instanceIds.png", "no image")
    save("cityscapes/gtFine/train/a/a_1_gtFine_instanceIds.png", scene()[:, :5])
    assert kept(tmp_path / "cityscapes", split="train") == (["a/a_2_leftImg8bit.png"], 6)
