import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from mrcnn_jax.data.distill import distill
from mrcnn_jax.inference.coco_files import to_annotations, write_dataset, write_detections
from mrcnn_jax.inference.partial_results import ImageResults
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.runs.categories import Categories


@pytest.fixture
def result(categories: Categories) -> Result:
    """A ball whose mask is a ring, and a figure with keypoints."""
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    return Result(
        boxes=np.array([[10, 20, 13.5, 23], [0, 0, 4, 8]], np.float32),
        scores=np.array([0.75, 0.5], np.float32),
        labels=np.array([1, 2]),
        image_size=(30, 40),
        categories=categories,
        crops=(PastedMask(20, 10, ring), PastedMask(0, 0, np.eye(2, dtype=bool))),
        keypoints=np.array([np.zeros((3, 3)), [[1.5, 2.5, 9], [3, 4, 9], [5, 6, -9]]], np.float32),
        path=Path("/photos/new/a.jpg"),
        keypoint_offset=0.5,
    )


def results(name: str, result: Result) -> ImageResults:
    return ImageResults(
        file=f"/photos/{name}",
        state=[],
        picture=None,
        size=list(result.image_size),
        drawn=len(result),
        objects=result.to_coco(0),
        annotations=to_annotations(result),
    )


def test_annotations_by_hand(result: Result) -> None:
    ball, figure = to_annotations(result)
    assert ball == {
        "category_id": 3,
        "bbox": [10, 20, 3.5, 3],
        "area": 8,
        "iscrowd": 0,
        "score": 0.75,
        "segmentation": [[10, 20, 13, 20, 13, 23, 10, 23]],  # without the hole
    }
    assert figure["segmentation"] == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    assert figure["keypoints"] == [1, 2, 2, 2.5, 3.5, 2, 4.5, 5.5, 2] and figure["num_keypoints"] == 3


def test_without_masks_the_area_is_that_of_the_box(result: Result) -> None:
    bare = Result(
        result.boxes, result.scores, result.labels, result.image_size, result.categories, crops=None
    )
    assert [entry["area"] for entry in to_annotations(bare)] == [10.5, 32]
    assert [entry["segmentation"] for entry in to_annotations(bare)] == [[], []]  # CVAT wants the field


def test_a_dataset_is_read_by_pycocotools(result: Result, categories: Categories, tmp_path: Path) -> None:
    images = [Path("/photos/old/b.jpg"), Path("/photos/broken.jpg"), Path("/photos/new/a.jpg")]
    found = [(0, results("old/b.jpg", result[:0])), (2, results("new/a.jpg", result))]
    file = tmp_path / "annotations.json"
    write_dataset(file, found, [5, 6, 7], images, categories)
    dataset = COCO(str(file))
    assert dataset.dataset["images"] == [
        {"id": 5, "file_name": "old/b.jpg", "width": 40, "height": 30},
        {"id": 7, "file_name": "new/a.jpg", "width": 40, "height": 30},
    ]
    assert dataset.dataset["categories"] == [
        {"id": 3, "name": "ball", "supercategory": "object"},
        {
            "id": 7,
            "name": "figure",
            "supercategory": "object",
            "keypoints": ["head", "left_foot", "right_foot"],
            "skeleton": [[1, 2], [1, 3]],
        },
    ]
    assert [(entry["id"], entry["image_id"]) for entry in dataset.loadAnns(dataset.getAnnIds())] == [
        (1, 7),
        (2, 7),
    ]


def test_a_dataset_lists_the_images_to_distill(
    result: Result, categories: Categories, tmp_path: Path
) -> None:
    found = [(0, results("a.jpg", result)), (1, results("b.jpg", result[:0]))]
    listed, detections = tmp_path / "found.json", tmp_path / "detections.json"
    write_dataset(listed, found, [1, 2], [Path("/photos/a.jpg"), Path("/photos/b.jpg")], categories)
    write_detections(detections, found, [1, 2])
    content = distill(detections, listed, min_score=0.6).content
    assert [entry["file_name"] for entry in content["images"]] == ["a.jpg", "b.jpg"]
    (ball,) = content["annotations"]
    assert (ball["image_id"], ball["category_id"], ball["bbox"]) == (1, 3, [10, 20, 3.5, 3])


def test_file_names_in_one_folder_are_bare(result: Result, categories: Categories, tmp_path: Path) -> None:
    write_dataset(
        tmp_path / "file", [(0, results("new/a.jpg", result))], [1], [Path("/photos/new/a.jpg")], categories
    )
    assert json.loads((tmp_path / "file").read_text())["images"][0]["file_name"] == "a.jpg"


def test_unused_labels_are_left_out(result: Result, tmp_path: Path) -> None:
    categories = Categories(ids=(1, 2, 3), names=("N/A", "ball", "N/A"))
    odd: Any = Result(result.boxes, result.scores, result.labels, result.image_size, categories)
    assert [entry["category_id"] for entry in to_annotations(odd)] == [2]
    write_dataset(tmp_path / "file", [], [1], [Path("/photos/new/a.jpg")], categories)
    assert json.loads((tmp_path / "file").read_text()) == {
        "info": {"description": "Objects found by mrcnn_jax", "contributor": "mrcnn_jax"},
        "licenses": [],
        "categories": [{"id": 2, "name": "ball", "supercategory": "object"}],
        "annotations": [],
        "images": [],
    }


def test_detections_have_the_images_ids(result: Result, tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    write_detections(file, [(1, results("new/a.jpg", result))], [5, 6])
    entries = json.loads(file.read_text())
    assert entries == [entry | {"image_id": 6} for entry in result.to_coco(0)]
    write_detections(file, [], [])
    assert json.loads(file.read_text()) == []


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    file.write_text("old")
    with pytest.raises(KeyError):
        write_detections(file, [(0, {})], [5])
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["detections.json"]


def test_names_that_are_no_utf8(result: Result, categories: Categories, tmp_path: Path) -> None:
    """Of detections as text for every parser, of a dataset such that its files are found."""
    name = "caf\udce9.jpg"
    found = results(name, dataclasses.replace(result, path=Path(name)))
    write_detections(tmp_path / "detections.json", [(0, found)], [1])
    entries = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert {entry["file_name"] for entry in entries} == {r"caf\xe9.jpg"}
    write_dataset(tmp_path / "dataset.json", [(0, found)], [1], [Path("/photos", name)], categories)
    assert json.loads((tmp_path / "dataset.json").read_text())["images"][0]["file_name"] == name
