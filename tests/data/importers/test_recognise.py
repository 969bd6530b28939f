import json

import pytest

from mrcnn_jax.commands import COMMANDS
from mrcnn_jax.data.importers.recognise import what_it_looks_like

LABELME = {"version": "5.5.0", "flags": {}, "shapes": [], "imagePath": "a.png", "imageData": "x" * 100_000}
VIA = {"a.png123": {"filename": "a.png", "size": 123, "regions": [], "file_attributes": {}}}
VIA_PROJECT = {"_via_settings": {}, "_via_img_metadata": {}}
VIA_3 = {"project": {"pid": "1", "vid_list": ["1"]}, "config": {}, "attribute": {}}
VIA_CSV = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
)
LABEL_STUDIO = [
    {"id": 1, "annotations": [{"result": [{"original_width": 3, "from_name": "l", "to_name": "i"}]}]}
]
LABEL_STUDIO_MIN = [{"image": "/data/a.jpg", "id": 1, "label": [], "annotator": 1, "annotation_id": 1}]
CREATE_ML = [{"image": "a.jpg", "annotations": [{"label": "dog", "coordinates": {"x": 1}}]}]
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
CONVERT = "convert it with: mrcnn-jax to_coco {} --format={} --output={}/annotations.json"


@pytest.mark.parametrize(
    ("name", "content", "looks", "source", "kind"),
    [
        ("a.json", LABELME, "a labelme annotation", "", "labelme"),
        ("via.json", VIA, "a VIA (VGG Image Annotator) file", "via.json", "via"),
        ("via.json", VIA_PROJECT, "a VIA (VGG Image Annotator) file", "via.json", "via"),
        ("via.json", VIA_3, "a VIA (VGG Image Annotator) file", "via.json", "via"),
        ("data.yaml", "train: a\nnc: 1\nnames: [dog]\n", "a YOLO dataset's data.yaml", "data.yaml", "yolo"),
        ("labels/train/a.txt", "0 0.5 0.5 1 1\n1 0.1 .2 1e-3 0\n", "a YOLO label file", "", "yolo"),
        ("Annotations/a.xml", "<annotation>", "a Pascal VOC annotation", "", "voc"),
        (
            "a.xml",
            '<?xml version="1.0"?>\n<!-- x --><annotation verified="yes">',
            "a Pascal VOC annotation",
            "",
            "voc",
        ),
    ],
)
def test_files_that_to_coco_converts(tmp_path, save, name, content, looks, source, kind):
    path = save(f"data/{name}", content)
    found = what_it_looks_like(path)
    command = CONVERT.format(tmp_path / "data" / source, kind, tmp_path / "data")
    assert found == f"looks like {looks}; {command}"
    assert "to_coco" in COMMANDS


@pytest.mark.parametrize(
    ("name", "content", "looks"),
    [
        ("a.json", LABEL_STUDIO, "Label Studio's own JSON; export them from there in the format COCO"),
        ("a.json", LABEL_STUDIO_MIN, "Label Studio's own JSON; export them from there in the format COCO"),
        ("a.json", CREATE_ML, "CreateML's JSON; to_coco does not read it"),
        ("a.json", RESULTS, "COCO results (detections); annotations are another file: instances_*.json"),
        (
            "a.xml",
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>',
            "a CVAT annotation file; it is CVAT's own XML: export them from there in the format COCO 1.0",
        ),
    ],
)
def test_files_that_their_tool_exports_as_coco(save, name, content, looks):
    assert what_it_looks_like(save(name, content)) == f"looks like {looks}"


@pytest.mark.parametrize(
    "content",
    [
        COCO,
        [],
        {},
        3,
        "",
        "dog cat",
        "<html>",
        "\0\1\2",
        "{",
        "[",
        "0 1 2",
        "0 640 480 20 30\n",
        "names: 3\n",
    ],
)
def test_other_files(save, content):
    for name in ("a.json", "a.txt", "a.xml", "a.yaml", "a"):
        assert what_it_looks_like(save(name, content)) is None


def test_an_encoding_of_windows(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(LABELME).encode("utf-16"))
    assert "labelme" in what_it_looks_like(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(VIA).encode())
    assert "VIA" in what_it_looks_like(path)


def test_folders(tmp_path, save):
    def found(folder):
        text = what_it_looks_like(tmp_path / folder)
        return text and text.replace(str(tmp_path), "").split("; convert it with: mrcnn-jax to_coco ")

    save("labelme/a.png")
    save("labelme/sub/a.json", LABELME)
    assert found("labelme") == [
        "looks like a folder of labelme annotations",
        "/labelme --format=labelme --output=/labelme/annotations.json",
    ]  # fmt: skip
    save("via/train/via.json", VIA)
    assert found("via")[1].startswith("/via/train/via.json ")
    save("voc/Annotations/a.xml", "<annotation></annotation>")
    assert found("voc") == [
        "looks like a Pascal VOC dataset",
        "/voc --format=voc --output=/voc/annotations.json",
    ]
    save("devkit/VOC2012/Annotations/a.xml", "<annotation></annotation>")
    assert found("devkit")[1].startswith("/devkit/VOC2012 --format=voc ")
    save("devkit/VOC2007/Annotations/a.xml", "<annotation></annotation>")
    assert found("devkit") is None  # both would be possible
    save("csv/via.csv", VIA_CSV)
    assert found("csv")[1].startswith("/csv/via.csv --format=via ")
    save("darknet/obj.names", "dog\n")
    save("darknet/obj.data", "classes = 1\n")
    assert found("darknet")[0] == "looks like a YOLO dataset"
    save("xml/a.xml", "<annotation></annotation>")
    assert found("xml")[0] == "looks like a folder of Pascal VOC annotations"
    save("yolo/data.yaml", "train: images\nnames: [dog]\n")
    assert found("yolo") == [
        "looks like a YOLO dataset",
        "/yolo --format=yolo --output=/yolo/annotations.json",
    ]
    save("classes/labels/a.txt", "0 0.5 0.5 1 1\n")
    save("classes/images/a.png")
    assert found("classes")[0] == "looks like a YOLO dataset"
    assert "/classes --format" in what_it_looks_like(tmp_path / "classes" / "labels" / "a.txt")
    save("flat/a.txt", "0 0.5 0.5 1 1\n")
    assert found("flat")[0] == "looks like a YOLO dataset"
    save("masks/images/a.png")
    save("masks/masks/a.png")
    assert found("masks") == [
        "looks like images with a folder of masks",
        "/masks --format=masks --output=/masks/annotations.json --category=NAME",
    ]
    save("bowl/a/images/a.png")
    save("bowl/a/masks/b.png")
    assert found("bowl")[0] == "looks like images with a folder of masks each"
    save("my photos/a.txt", "0 0.5 0.5 1 1\n")
    assert found("my photos")[1] == "'/my photos' --format=yolo --output='/my photos/annotations.json'"
    save("pictures/a.png")
    assert found("pictures") is None and found("missing") is None
