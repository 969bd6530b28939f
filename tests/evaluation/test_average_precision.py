import contextlib
import io
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage, read_coco
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.evaluators import Kind
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.runs.categories import Categories

Box = tuple[float, float, float, float]


def make_dataset(
    boxes: list[Box], *, crowd: bool = False, keypoints: np.ndarray | None = None
) -> CocoDataset:
    """A 200 x 200 image with these boxes (x1 y1 x2 y2) of category 5, filled by their masks."""
    annotations = tuple(
        CocoAnnotation(
            id=i,
            label=1,
            box=box,
            crowd=crowd,
            segmentation=(np.array([box[:2], (box[2], box[1]), box[2:], (box[0], box[3])], np.float64),),
            keypoints=keypoints,
        )
        for i, box in enumerate(boxes, start=1)
    )
    image = CocoImage(
        id=11, path=Path("a.png"), file_name="a.png", height=200, width=200, annotations=annotations
    )
    categories = Categories(
        ids=(5,), names=("thing",), keypoint_labels=(1,), keypoint_names=("a", "b"), sigmas=(0.05, 0.1)
    )
    return CocoDataset(name="made up", categories=categories, images=(image,))


def truth_of(dataset: CocoDataset) -> hotcoco.COCO:
    return ground_truth(FolderSource(dataset, mask_grid=0))


def entry(box: Box, score: float, **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {"image_id": 11, "category_id": 5, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score, **more}


def test_by_hand() -> None:
    """The higher-scoring detection hits one of two objects: precision 1 up to a recall of one half."""
    truth = truth_of(make_dataset([(0, 0, 50, 50), (100, 100, 200, 200)]))
    found = [entry((0, 0, 50, 50), 0.9), entry((60, 0, 90, 30), 0.8)]
    precision = average_precision(truth, found, "bbox", category_ids=[5])
    half = round(100 * 51 / 101, 3)  # 51 of the recalls 0, .01 ... 1 are at most one half
    assert precision.summary == {
        "AP": half, "AP50": half, "AP75": half, "APs": None, "APm": 100.0, "APl": 0.0, "AR100": 50.0,
    }  # fmt: skip
    assert precision.per_category == {5: half}


def test_false_positive_first() -> None:
    truth = truth_of(make_dataset([(0, 0, 50, 50)]))
    found = [entry((0, 0, 50, 50), 0.7), entry((60, 0, 90, 30), 0.8)]
    assert average_precision(truth, found, "bbox", category_ids=[5]).summary["AP"] == 50.0


def test_overlap_decides_at_each_threshold() -> None:
    """An IoU of 0.62 passes 0.5, 0.55 and 0.6 of the ten thresholds."""
    truth = truth_of(make_dataset([(0, 0, 100, 100)]))
    summary = average_precision(truth, [entry((0, 0, 100, 62), 0.9)], "bbox", category_ids=[5]).summary
    assert (summary["AP"], summary["AP50"], summary["AP75"]) == (30.0, 100.0, 0.0)


def test_keypoints_by_hand() -> None:
    """OKS is the mean of exp(-d^2 / (2 area (2 sigma)^2)) over the labelled points, d being their error."""
    points = np.array([[20, 20, 2], [80, 80, 1]], np.float32)
    truth = truth_of(make_dataset([(0, 0, 100, 100)], keypoints=points))
    variance = 10_000 * (2 * 0.1) ** 2
    off = np.sqrt(-2 * variance * np.log(0.44))  # 0.44 for the second and 1 for the first: 0.72
    found = [entry((0, 0, 100, 100), 0.9, keypoints=[20, 20, 1, 80 + off, 80, 1])]
    summary = average_precision(truth, found, "keypoints", category_ids=[5], sigmas=(0.05, 0.1)).summary
    assert summary == {"AP": 50.0, "AP50": 100.0, "AP75": 0.0, "APm": None, "APl": 50.0, "AR20": 50.0}


def test_object_without_labelled_keypoints_is_ignored() -> None:
    truth = truth_of(make_dataset([(0, 0, 100, 100)], keypoints=np.zeros((2, 3), np.float32)))
    found = [entry((0, 0, 100, 100), 0.9, keypoints=[20, 20, 1, 80, 80, 1])]
    summary = average_precision(truth, found, "keypoints", category_ids=[5], sigmas=(0.05, 0.1)).summary
    assert set(summary.values()) == {None}


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_nothing_found(kind: Kind) -> None:
    points = np.array([[20, 20, 2], [30, 30, 2]], np.float32)
    truth = truth_of(make_dataset([(0, 0, 50, 50)], keypoints=points))
    precision = average_precision(truth, [], kind, category_ids=[5], sigmas=(0.05, 0.1))
    assert precision.summary["AP"] == 0.0 and precision.summary["APl"] is None
    assert precision.per_category == {5: 0.0}


def test_nothing_to_find() -> None:
    for dataset in (make_dataset([]), make_dataset([(0, 0, 50, 50)], crowd=True)):
        found = [entry((0, 0, 50, 50), 0.9)]
        precision = average_precision(truth_of(dataset), found, "bbox", category_ids=[5])
        assert set(precision.summary.values()) == {None} and precision.per_category == {5: None}


def test_detections_in_a_crowd_are_not_wrong() -> None:
    dataset = make_dataset([(0, 0, 50, 50), (100, 0, 200, 200)])
    image = dataset.images[0]
    whole, group = image.annotations
    group = CocoAnnotation(**{name: getattr(group, name) for name in group.__slots__} | {"crowd": True})
    image = CocoImage(
        **{name: getattr(image, name) for name in image.__slots__} | {"annotations": (whole, group)}
    )
    truth = truth_of(CocoDataset(dataset.name, dataset.categories, (image,)))
    found = [entry((110, 10, 150, 50), 0.95), entry((0, 0, 50, 50), 0.9)]
    assert average_precision(truth, found, "bbox", category_ids=[5]).summary["AP"] == 100.0


def test_area_missing_from_the_file_is_computed() -> None:
    (annotation,) = truth_of(make_dataset([(10, 10, 30, 50)])).dataset["annotations"]
    assert annotation["area"] == 20 * 40


@pytest.fixture(scope="module")
def coco_mini(shared: Path) -> CocoDataset:
    return read_coco(
        shared / "data" / "coco_mini",
        images="val2017",
        annotations="annotations/instances_val2017.json",
        keypoints="annotations/person_keypoints_val2017.json",
    )


def truth_as_entries(truth: COCO) -> list[dict[str, Any]]:
    return [
        {**annotation, "score": 0.9}
        for annotation in truth.dataset["annotations"]
        if not annotation["iscrowd"]
    ]


def category_ids(dataset: CocoDataset, kind: str) -> list[int]:
    categories = dataset.categories
    labels = categories.keypoint_labels if kind == "keypoints" else range(1, len(categories) + 1)
    return [categories.ids[label - 1] for label in labels]


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_ground_truth_against_itself_is_perfect(coco_mini: CocoDataset, kind: Kind) -> None:
    truth = truth_of(coco_mini)
    entries = truth_as_entries(truth)
    if kind == "keypoints":
        entries = [item for item in entries if item["num_keypoints"]]
    precision = average_precision(
        truth, entries, kind, category_ids=category_ids(coco_mini, kind), sigmas=coco_mini.categories.sigmas
    )
    assert {value for name, value in precision.summary.items() if name.startswith("AP")} == {100.0}


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_equals_pycocotools_on_coco(coco_mini: CocoDataset, shared: Path, kind: Kind) -> None:
    """Noisy detections, passed to pycocotools through ``loadRes`` and ``summarize``."""
    rng = np.random.default_rng(0)
    truth = truth_of(coco_mini)
    found = []
    for item in truth_as_entries(truth):
        for _ in range(int(rng.integers(0, 3))):
            box = (np.array(item["bbox"]) * rng.normal(1, 0.07, 4)).round(3).tolist()
            points = np.array(item["keypoints"]).reshape(-1, 3) + rng.normal(0, (4, 4, 0))
            found.append(
                {
                    "image_id": item["image_id"],
                    "category_id": item["category_id"]
                    if rng.random() > 0.1
                    else int(rng.choice(category_ids(coco_mini, "bbox"))),
                    "bbox": box,
                    "score": round(float(rng.random()), 5),
                    "segmentation": item["segmentation"],
                    "keypoints": points.ravel().round(3).tolist(),
                }
            )
    ours = average_precision(
        truth, found, kind, category_ids=category_ids(coco_mini, kind), sigmas=coco_mini.categories.sigmas
    ).summary

    file = "person_keypoints" if kind == "keypoints" else "instances"
    dropped = {
        "bbox": ("segmentation", "keypoints"),
        "segm": ("bbox", "keypoints"),
        "keypoints": ("segmentation",),
    }
    theirs_found = [{key: value for key, value in item.items() if key not in dropped[kind]} for item in found]
    if kind == "keypoints":
        theirs_found = [item for item in theirs_found if item["category_id"] == 1]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs_truth = COCO(shared / "data" / "coco_mini" / "annotations" / f"{file}_val2017.json")
        evaluation = COCOeval(theirs_truth, theirs_truth.loadRes(theirs_found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    places = (0, 1, 2, 3, 4, 5) if kind == "keypoints" else (0, 1, 2, 3, 4, 5, 8)
    assert list(ours.values()) == pytest.approx([100 * evaluation.stats[place] for place in places], abs=1e-3)
    assert 1 < ours["AP"] < 99
