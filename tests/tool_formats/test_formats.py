"""The files of each format, by hand; test_round_trip.py and test_with_tools.py read them back."""

import json
import os
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.tool_formats.export import export
from mrcnn_jax.tool_formats.found import Found
from mrcnn_jax.tool_formats.label_studio import brush_runs
from tests.tool_formats.examples import NAMES, OBJECTS, SIZE, entries, iou, write_example


def test_coco(write):
    content = json.loads((write("coco") / "labels.json").read_text())
    assert [entry["file_name"] for entry in content["images"]] == ["a.png", "sub/b b.jpg"]
    assert [entry["id"] for entry in content["annotations"]] == [1, 2, 3, 4, 5]
    whole, ring, parts, box, _ = content["annotations"]
    assert isinstance(whole["segmentation"], list) and len(parts["segmentation"]) == 2
    assert isinstance(ring["segmentation"]["counts"], str)  # holes
    assert (box["segmentation"], box["area"], box["bbox"]) == ([], 128.125, [60, 5, 12.5, 10.25])
    assert (whole["score"], whole["area"], whole["iscrowd"]) == (0.9, int(OBJECTS["whole"][3].sum()), 0)


def test_labelme(write):
    folder = write("labelme")
    content = json.loads((folder / "sub/b b.json").read_text())
    assert content["imagePath"] == "../../photos/sub/b b.jpg"
    assert (content["imageHeight"], content["imageWidth"]) == (30, 50)
    shapes = json.loads((folder / "a.json").read_text())["shapes"]
    kinds = [(shape["shape_type"], shape["group_id"], shape["description"]) for shape in shapes]
    assert kinds == [
        ("polygon", None, "score 0.9"),
        ("mask", None, "score 0.8"),
        ("polygon", 3, "score 0.7"),
        ("polygon", 3, "score 0.7"),
        ("rectangle", None, "score 0.6"),
    ]
    assert shapes[1]["points"] == [[4, 27], [35, 58]]


def test_cvat(write):
    root = ET.parse(write("cvat") / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == [NAMES[1], "dog"]
    images = root.findall("image")
    assert [image.get("name") for image in images] == ["a.png", "sub/b b.jpg"]
    assert images[0].attrib == {"id": "0", "name": "a.png", "width": "80", "height": "60"}
    polygon, ring, parts, box = images[0]
    assert [item.tag for item in images[0]] == ["polygon", "mask", "mask", "box"]
    assert ring.get("label") == NAMES[1] and polygon.findtext("attribute[@name='score']") == "0.9"
    assert box.attrib.items() >= {"xtl": "60.00", "ytl": "5.00", "xbr": "72.50", "ybr": "15.25"}.items()
    for item, name in ((ring, "ring"), (parts, "two parts")):
        runs = [int(number) for number in item.get("rle").split(",")]
        left, top, width, height = (int(item.get(key)) for key in ("left", "top", "width", "height"))
        pixels = np.zeros(SIZE, bool)
        crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        pixels[top : top + height, left : left + width] = crop
        np.testing.assert_array_equal(pixels, OBJECTS[name][3])


def test_label_studio(write):
    folder = write("label_studio")
    root = ET.parse(folder / "config.xml").getroot()
    assert [label.get("value") for label in root.find("PolygonLabels")] == [NAMES[1], "dog"]
    first, second = json.loads((folder / "tasks.json").read_text())
    assert second["data"] == {"image": "/data/local-files/?d=photos/sub/b%20b.jpg"}
    (prediction,) = first["predictions"]
    assert prediction["score"] == pytest.approx(0.75)
    whole, ring, parts, box = prediction["result"]
    assert [item["type"] for item in prediction["result"]] == [
        "polygonlabels", "brushlabels", "brushlabels", "rectanglelabels",
    ]  # fmt: skip
    assert box["value"] == {
        "x": 75,
        "y": pytest.approx(25 / 3),
        "width": 15.625,
        "height": pytest.approx(205 / 12),
        "rotation": 0,
        "rectanglelabels": [NAMES[1]],
    }
    assert np.min(whole["value"]["points"], axis=0).tolist() == pytest.approx([3.75, 5])
    assert (whole["original_width"], whole["original_height"]) == (80, 60)
    assert len({item["id"] for item in (whole, ring, parts, box)}) == 4


def test_label_studios_address_of_images(write):
    folder = write("label_studio", image_url="https://example.org/")
    assert json.loads((folder / "tasks.json").read_text())[0]["data"]["image"] == "https://example.org/a.png"
    with pytest.raises(ValueError, match="--image_url=x is for --format=label_studio, not coco"):
        write("coco", image_url="x")


def test_brush_runs_by_hand():
    # 2 pixels are 8 values; a run of 4 zeros, then one of 4 times 255. Sizes 3, 4, 8 and 16: the first fits.
    bits = f"{8:032b}" + "00111" + "0010001101111111"
    bits += "10001100000000" + "10001111111111"
    expected = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    assert brush_runs(np.array([[False, True]])) == expected


def test_yolo(write):
    folder = write("yolo")
    lines = (folder / "labels/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0", "1", "0"]
    assert lines[3] == "0 0.828125 0.168750 0.156250 0.170833"
    assert (folder / "labels/sub/b b.txt").is_file()
    assert 'names:\n  0: per"son & <co>\n  1: dog\n' in (folder / "data.yaml").read_text()


def test_voc(write):
    folder = write("voc")
    assert (folder / "ImageSets/Main/default.txt").read_text() == "a\nb b\n"
    root = ET.parse(folder / "Annotations/a.xml").getroot()
    assert [item.findtext("name") for item in root.findall("object")] == ["dog", NAMES[1], "dog", NAMES[1]]
    assert [child.text for child in root.find("object/bndbox")] == ["4", "4", "27", "27"]
    with Image.open(folder / "SegmentationObject/a.png") as image:
        assert image.mode == "P" and image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert iou(np.asarray(image) == 2, OBJECTS["ring"][3]) == 1
    with Image.open(folder / "SegmentationClass/a.png") as image:
        np.testing.assert_array_equal(np.asarray(image) == 1, OBJECTS["ring"][3])
    assert "dog:0,128,0::\n" in (folder / "labelmap.txt").read_text()


@pytest.mark.parametrize("format", ["coco", "labelme", "cvat", "label_studio", "yolo", "voc", "masks"])
def test_nothing_is_overwritten(write, format):
    folder = write(format)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="exists; it is not overwritten"):
        write(format)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("format", ["coco", "labelme", "label_studio", "yolo", "masks"])
def test_file_names_that_are_not_utf8(tmp_path, format):
    name = os.fsdecode(b"caf\xe9.png")
    results, images = write_example(tmp_path)
    (images / "a.png").rename(images / name)
    results.write_text(results.read_text().replace("a.png", "caf\\udce9.png"))
    export(Found(results, images), tmp_path / "out", format)
    data = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file())
    written = {"label_studio": b"caf%E9", "masks": b"caf\xe9.png", "yolo": b""}.get(format, b"caf\\udce9")
    assert written in data
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert format not in ("labelme", "yolo", "masks") or any(found.startswith("caf\udce9") for found in names)


@pytest.mark.parametrize("format", ["cvat", "voc"])
def test_names_that_xml_cannot_hold(tmp_path, format):
    results, images = write_example(tmp_path)
    (images / "a.png").rename(images / "a\x01.png")
    results.write_text(results.read_text().replace("a.png", "a\\u0001.png"))
    with pytest.raises(ValueError, match=r"'a.x01.png': XML cannot hold the character"):
        export(Found(results, images), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_long_names_of_categories_are_cut_to_what_a_folder_can_be_called(tmp_path):
    """A file system counts bytes, and these characters have three each."""
    results, images = write_example(tmp_path)
    named = {entry["category_id"]: "長" * 90 + str(entry["category_id"]) for entry in entries()}
    results.write_text(json.dumps([x | {"category": named[x["category_id"]]} for x in entries()]))
    export(Found(results, images), tmp_path / "out", "masks")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["長" * 33, "長" * 33 + f"-{max(named)}"]


def test_images_whose_files_would_be_the_same(tmp_path):
    results, images = write_example(tmp_path)
    (images / "sub/b b.jpg").rename(images / "a.jpg")
    results.write_text(results.read_text().replace("sub/b b.jpg", "a.jpg"))
    with pytest.raises(
        ValueError, match=r"out/a\.json: two images would be written to this file; rename one"
    ):
        export(Found(results, images), tmp_path / "out", "labelme")


def test_masks_that_a_byte_cannot_number(tmp_path):
    results, images = write_example(tmp_path)
    first = entries()[0]
    results.write_text(json.dumps([first] * 253 + [first | {"score": 0.95}] * 2))
    found = Found(results, images)
    export(found, tmp_path / "out", "voc")
    assert found.left_out == {"masks after the 254th of an image: the boxes are kept": 1}
    with Image.open(tmp_path / "out/SegmentationObject/a.png") as image:
        assert np.unique(image).tolist() == [0, 254]  # the highest score is on top
    assert len(ET.parse(tmp_path / "out/Annotations/a.xml").findall("object")) == 255
