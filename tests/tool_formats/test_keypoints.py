"""Keypoints in each format; test_with_tools.py reads them with the tools' own libraries."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml

from mrcnn_jax.data.categories import COCO_KEYPOINTS
from mrcnn_jax.data.coco_categories import COCO_PERSON
from mrcnn_jax.data.importers.convert import Options, convert
from mrcnn_jax.inference.coco_files import to_annotations, write_dataset, write_detections
from mrcnn_jax.inference.results import Result
from mrcnn_jax.tool_formats.export import export
from mrcnn_jax.tool_formats.found import Found
from mrcnn_jax.tool_formats.keypoints import visible_keypoints
from tests.tool_formats.examples import KEYPOINTS, NAMES, WITH_KEYPOINTS, write_keypoint_example


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((1.5, 2, 1), (1.5, 2)),
        ((1.5, 2, -3), (1.5, 2)),  # a logit
        ((1.5, 2, 0), None),
        ((0, 0, 1), (0, 0)),
        ((-0.5, 30.5, 1), (0, 30)),
        ((-0.6, 5, 1), None),
        ((40, 30.6, 1), None),
        ((40.5, 5, 1), (40, 5)),
    ],
)
def test_a_keypoint_that_is_there(point, expected):
    found = visible_keypoints(list(map(float, point)), ["nose"], (30, 40))
    assert found == ({} if expected is None else {"nose": expected})


def test_coco(write_keypoints):
    folder, _ = write_keypoints("coco")
    content = json.loads((folder / "labels.json").read_text())
    ring, box, whole = content["annotations"]
    assert (ring["keypoints"], ring["num_keypoints"]) == ([20.5, 30, 2, 0, 40, 2, 0, 0, 0], 2)
    assert (box["keypoints"], box["num_keypoints"]) == ([0] * 9, 0)
    assert "keypoints" not in whole
    person, dog = content["categories"]
    assert (person["keypoints"], person["skeleton"]) == (list(KEYPOINTS), [[1, 2], [1, 3]])
    assert "keypoints" not in dog


def test_labelme(write_keypoints):
    folder, _ = write_keypoints("labelme")
    shapes = json.loads((folder / "a.json").read_text())["shapes"]
    assert [(shape["label"], shape["shape_type"], shape["group_id"]) for shape in shapes] == [
        (NAMES[1], "mask", 1),
        ("nose", "point", 1),
        ("left_eye", "point", 1),
        (NAMES[1], "rectangle", None),
        ("dog", "polygon", None),
    ]
    assert [shape["points"] for shape in shapes[1:3]] == [[[20.5, 30]], [[0, 40]]]


def test_cvat(write_keypoints):
    folder, _ = write_keypoints("cvat")
    root = ET.parse(folder / "annotations.xml").getroot()
    labels = [
        (label.findtext("name"), label.findtext("type"), label.findtext("parent"))
        for label in root.iterfind("meta/task/labels/label")
    ]
    skeleton = f"{NAMES[1]}_skeleton"
    points = [(name, "points", skeleton) for name in KEYPOINTS]
    assert labels == [(NAMES[1], None, None), ("dog", None, None), (skeleton, "skeleton", None), *points]
    (image,) = root.iterfind("image")
    assert [(item.tag, item.get("label"), item.get("group_id")) for item in image] == [
        ("mask", NAMES[1], "1"),
        ("skeleton", skeleton, "1"),
        ("box", NAMES[1], None),
        ("polygon", "dog", None),
    ]
    assert [
        (item.get("label"), item.get("outside"), item.get("occluded"), item.get("points"))
        for item in image[1].iterfind("points")
    ] == [
        ("nose", "0", "0", "20.50,30.00"),
        ("left_eye", "0", "0", "0.00,40.00"),
        ("right_eye", "1", "0", "20.00,43.00"),  # the middle of the object
    ]
    assert image[1].findtext("attribute[@name='score']") == "0.8"


def test_cvats_labels_are_distinct(tmp_path):
    results, images, annotations = write_keypoint_example(tmp_path)
    for path in (results, annotations):
        path.write_text(path.read_text().replace('"dog"', json.dumps(f"{NAMES[1]}_skeleton")))
    with pytest.raises(ValueError, match=r"_skeleton'\]: CVAT's skeletons get these names"):
        export(Found(results, images, annotations=annotations), tmp_path / "out", "cvat")


def test_label_studio(write_keypoints):
    folder, _ = write_keypoints("label_studio")
    root = ET.parse(folder / "config.xml").getroot()
    assert [(label.get("value"), label.get("model_index")) for label in root.find("KeyPointLabels")] == [
        ("nose", "0"), ("left_eye", "1"), ("right_eye", "2"),
    ]  # fmt: skip
    ((prediction,),) = [task["predictions"] for task in json.loads((folder / "tasks.json").read_text())]
    brush, nose, eye, box, polygon = prediction["result"]
    assert [item["type"] for item in (brush, box, polygon)] == [
        "brushlabels", "rectanglelabels", "polygonlabels",
    ]  # fmt: skip
    for item, name in ((nose, "nose"), (eye, "left_eye")):
        assert (item["type"], item["from_name"], item["parentID"]) == (
            "keypointlabels",
            "keypoint",
            brush["id"],
        )
        assert item["value"]["keypointlabels"] == [name]
    assert (nose["value"]["x"], nose["value"]["y"]) == (25.625, 50)
    assert len({item["id"] for item in prediction["result"]}) == 5


def test_yolo(write_keypoints):
    folder, found = write_keypoints("yolo")
    ring, box, whole = (folder / "labels/a.txt").read_text().splitlines()
    points = "0.256250 0.500000 2 0.000000 0.666667 2 0.000000 0.000000 0"
    assert ring == f"0 0.250000 0.716667 0.400000 0.533333 {points}"
    nothing = " ".join(["0.000000 0.000000 0"] * 3)
    assert box == f"0 0.828125 0.168750 0.156250 0.170833 {nothing}"
    assert whole.startswith("1 0.187500") and whole.endswith(nothing)
    assert yaml.safe_load((folder / "data.yaml").read_text()) == {
        "train": "images",
        "val": "images",
        "names": {0: NAMES[1], 1: "dog"},
        "kpt_shape": [3, 3],
        "flip_idx": [0, 2, 1],
        "kpt_names": {0: list(KEYPOINTS)},
    }
    assert found.left_out == {"masks: YOLO's poses have no place for them; --nokeypoints keeps them": 2}


def test_yolo_with_masks_instead(write_keypoints):
    folder, found = write_keypoints("yolo", keypoints=False)
    assert len((folder / "labels/a.txt").read_text().splitlines()[0].split()) > 20
    assert "kpt_shape" not in (folder / "data.yaml").read_text()
    assert found.left_out == {"sets of keypoints: --nokeypoints": 1}


@pytest.mark.parametrize(("format", "name"), [("voc", "Pascal VOC"), ("masks", "a mask")])
def test_formats_without_a_place_for_keypoints(write_keypoints, format, name):
    _, found = write_keypoints(format)
    assert found.left_out[f"sets of keypoints: {name} has no place for them"] == 1


def test_keypoints_without_names_are_numbered(write_keypoints):
    folder, found = write_keypoints("yolo", named=False)
    assert found.categories.keypoint_names == ("keypoint_1", "keypoint_2", "keypoint_3")
    assert "flip_idx" not in (folder / "data.yaml").read_text()  # left and right are not known


def test_categories_without_keypoints_in_annotations(tmp_path):
    results, images, annotations = write_keypoint_example(tmp_path)
    content = json.loads(results.read_text())
    content[2]["keypoints"] = WITH_KEYPOINTS
    results.write_text(json.dumps(content))
    found = Found(results, images, annotations=annotations)
    ((ring, _, whole),) = [image.objects for image in found]
    assert list(ring.keypoints) == ["nose", "left_eye"] and whole.keypoints == {}
    assert found.left_out == {"sets of keypoints: their category has none in --annotations": 1}


@pytest.mark.parametrize(
    ("changes", "named", "message"),
    [
        ([{"keypoints": [1, 2]}], True, r"\[0\]: keypoints must be \[x, y, score\] for each keypoint"),
        ([{"keypoints": [1, float("nan"), 2]}], True, r"\[0\]: keypoints must be"),
        ([{"keypoints": "all"}], True, r"\[0\]: keypoints must be .* got 'all'"),
        ([{"keypoints": [1, 2, 1]}], True, r"objects have 1 keypoints, but --annotations names 3; --nokey"),
        ([{}, {"keypoints": [1, 2, 1]}], True, r"\[1\]: has 1 keypoints; category_id 1 has 3 before"),
        ([{}, {}, {"keypoints": [1, 2, 1]}], False, r"differ in their number of keypoints: \{1: 3, 18: 1\}"),
    ],
)
def test_wrong_keypoints(tmp_path, changes, named, message):
    results, images, annotations = write_keypoint_example(tmp_path)
    content = json.loads(results.read_text())
    for entry, change in zip(content, changes, strict=False):
        entry |= change
    results.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Found(results, images, annotations=annotations if named else None)


def test_names_that_would_break_files(tmp_path):
    results, images, annotations = write_keypoint_example(tmp_path)
    annotations.write_text(annotations.read_text().replace("nose", "no\\nse"))
    with pytest.raises(ValueError, match="names must not have control characters"):
        Found(results, images, annotations=annotations)


@pytest.mark.parametrize("format", ["labelme", "yolo"])
def test_keypoints_come_back(write_keypoints, format):
    folder, _ = write_keypoints(format)
    images = folder.parent / "photos"
    if format == "yolo":
        (folder / "images").symlink_to(images)
    split = {"split": "train"} if format == "yolo" else {"images": str(images)}
    builder = convert(folder, Options(format=format, **split))
    assert builder.findings == []
    content = builder.content()
    names = {entry["id"]: entry.get("keypoints") for entry in content["categories"]}
    expected = [20.5, 30, 2, 0, 40, 2] + (
        [0, 0, 0] if format == "yolo" else []
    )  # labelme has no list of names
    ring = next(entry for entry in content["annotations"] if any(entry.get("keypoints", [])))
    np.testing.assert_allclose(ring["keypoints"], expected, atol=1e-4)
    assert names[ring["category_id"]] == list(KEYPOINTS[: len(expected) // 3])
    assert sum(any(entry.get("keypoints", [])) for entry in content["annotations"]) == 1
    assert len(content["annotations"]) == 3


def test_what_predict_writes(tmp_path):
    """Its results list has no names; the data set of --save_dataset has them."""
    categories = COCO_PERSON
    points = np.array([[[x, 2.0 * x, 5.0] for x in range(1, 18)]], np.float32)
    result = Result(
        boxes=np.array([[1.0, 2.0, 30.0, 40.0]], np.float32),
        scores=np.array([0.9], np.float32),
        labels=np.array([1]),
        image_size=(60, 80),
        categories=categories,
        keypoints=points,
        path=tmp_path / "photos/a.png",
    )
    _, images, _ = write_keypoint_example(tmp_path)
    results, dataset = tmp_path / "out.json", tmp_path / "dataset.json"
    written = {"file": str(images / "a.png"), "size": (60, 80), "objects": result.to_coco(7)}
    listed = [(0, written | {"annotations": to_annotations(result)})]
    write_detections(results, listed, [7])
    write_dataset(dataset, listed, [7], [images / "a.png"], categories)
    found = Found(results, images, annotations=dataset)
    ((item,),) = [image.objects for image in found]
    assert list(item.keypoints) == list(COCO_KEYPOINTS) and item.keypoints["left_eye"] == (2, 4)
    assert found.categories.skeleton == categories.skeleton
    assert not found.keypoints_are_numbered and Found(results, images).keypoints_are_numbered
