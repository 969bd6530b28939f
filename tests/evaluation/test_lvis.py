"""LVIS's metrics, compared with those of the ``lvis`` package (``lvis_metrics.py`` has stored them)."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.coco_eval import check_evaluator
from mrcnn_jax.evaluation.evaluators import evaluate_entries, that_count
from mrcnn_jax.evaluation.ground_truth import annotated_categories, ground_truth
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

SCRIPT = Path(__file__).parents[1] / "fixtures" / "lvis_metrics.py"


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


STORED = json.loads(SCRIPT.with_suffix(".json").read_text())


def encode(bitmap: np.ndarray) -> dict[str, Any]:
    return Rle.from_bitmap(bitmap != 0).compressed()


def as_source(truth: dict[str, Any]) -> FolderSource:
    """The ground truth of a case as read from its file."""
    categories = sorted(truth["categories"], key=lambda entry: entry["id"])
    ids = [entry["id"] for entry in categories]

    def labels(entry: dict[str, Any], key: str) -> tuple[int, ...]:
        return tuple(ids.index(category) + 1 for category in entry[key])

    def read(item: dict[str, Any]) -> CocoAnnotation:
        x, y, width, height = item["bbox"]
        return CocoAnnotation(
            id=item["id"],
            label=ids.index(item["category_id"]) + 1,
            box=(x, y, x + width, y + height),
            crowd=False,
            segmentation=Rle.from_json(item["segmentation"]),
            keypoints=None,
            area=item["area"],
        )

    images = tuple(
        CocoImage(
            id=entry["id"],
            path=Path("a.png"),
            file_name="a.png",
            height=entry["height"],
            width=entry["width"],
            annotations=tuple(read(item) for item in truth["annotations"] if item["image_id"] == entry["id"]),
            negative=labels(entry, "neg_category_ids"),
            not_exhaustive=labels(entry, "not_exhaustive_category_ids"),
        )
        for entry in truth["images"]
    )
    names = Categories(ids=tuple(ids), names=tuple(entry["name"] for entry in categories))
    frequencies = tuple(entry["frequency"] for entry in categories)
    return FolderSource(CocoDataset("lvis.json", names, images, frequencies=frequencies), mask_grid=0)


@pytest.mark.parametrize("name", STORED)
def test_equals_the_lvis_package(name: str) -> None:
    script = load_script()
    truth, entries = script.make_case(name, encode)
    stored = STORED[name]
    assert script.checksum(entries) == pytest.approx(stored["checksum"], rel=1e-12)
    if name == "many":
        per_image = np.unique([entry["image_id"] for entry in entries], return_counts=True)[1]
        assert per_image.max() > 300
    source = as_source(truth)
    assert source.federated is not None
    for kind in ("bbox", "segm"):
        found = average_precision(
            ground_truth(source),
            entries,
            kind,
            category_ids=source.categories.ids,
            frequencies=source.federated.frequencies,
        )
        wanted = stored[kind]["results"] | {"AR300": stored[kind]["results"]["AR@300"]}
        for metric, value in found.summary.items():
            assert (-1 if value is None else value / 100) == pytest.approx(wanted[metric], abs=6e-6), metric
        assert len(found.summary) == 10
        values = [-1 if value is None else value / 100 for value in found.per_category.values()]
        np.testing.assert_allclose(values, stored[kind]["per_category"], atol=6e-6)


def entry(image: int, category: int, score: float, x: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}


@pytest.mark.parametrize("name", ["plain", "many"])
def test_what_does_not_count_can_be_left_out(name: str) -> None:
    truth, entries = load_script().make_case(name, encode)
    source = as_source(truth)
    counted = []
    for index, image in enumerate(source.ids.tolist()):
        of_image = [entry for entry in entries if entry["image_id"] == image]
        counted += that_count(of_image, annotated_categories(source, index))
    assert len(counted) < 0.8 * len(entries)
    assert source.federated is not None
    for kind in ("bbox", "segm"):
        arguments: Any = {
            "category_ids": source.categories.ids,
            "frequencies": source.federated.frequencies,
        }
        wanted = average_precision(ground_truth(source), entries, kind, **arguments)
        assert average_precision(ground_truth(source), counted, kind, **arguments) == wanted


def test_by_hand() -> None:
    """What is found of a category counts in images that have it or certainly do not have it."""
    full = encode(np.ones((20, 40), np.uint8))
    truth: dict[str, Any] = {
        "images": [
            {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []},
            {"id": 2, "neg_category_ids": [5], "not_exhaustive_category_ids": []},
            {"id": 3, "neg_category_ids": [], "not_exhaustive_category_ids": []},
            {"id": 4, "neg_category_ids": [], "not_exhaustive_category_ids": [5]},
        ],
        "categories": [
            {"id": 5, "name": "a", "frequency": "r"},
            {"id": 6, "name": "b", "frequency": "f"},
        ],
        "annotations": [
            {"id": image, "image_id": image, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100,
             "segmentation": full}
            for image in (1, 4)
        ],
    }  # fmt: skip
    for image in truth["images"]:
        image.update(height=20, width=40)
    source = as_source(truth)

    def measure(*entries: dict[str, Any]) -> dict[str, float | None]:
        return average_precision(
            ground_truth(source), entries, "bbox", category_ids=[5, 6], frequencies=["r", "f"]
        ).summary

    right = entry(1, 5, 0.5), entry(4, 5, 0.4)
    assert [measure(*right)[name] for name in ("AP", "APr", "APc", "APf")] == [100, 100, None, None]
    # Of image 3 nothing is known of category 5; image 4 may have more objects of it.
    assert measure(*right, entry(3, 5, 0.9), entry(4, 5, 0.9, x=20))["AP"] == 100
    assert measure(*right, entry(1, 5, 0.9, x=20))["AP"] == pytest.approx(100 * 2 / 3, abs=0.001)
    assert measure(*right, entry(2, 5, 0.9))["AP"] == pytest.approx(100 * 2 / 3, abs=0.001)
    assert measure()["AP"] == 0


def test_300_detections_of_an_image_count_whatever_their_categories() -> None:
    truth, _ = load_script().make_case("plain", encode)
    source = as_source(truth)
    item = truth["annotations"][0]
    found = {key: item[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.1}
    other = next(key for key in source.categories.ids if key != item["category_id"])
    better = [found | {"category_id": other, "score": 0.5}]

    def recall(count: int) -> float:
        assert source.federated is not None
        scores = average_precision(
            ground_truth(source),
            [found, *better * count],
            "bbox",
            category_ids=source.categories.ids,
            frequencies=source.federated.frequencies,
        )
        of_category = scores.per_category[item["category_id"]]
        assert of_category is not None
        return of_category

    assert recall(299) > 0 == recall(300)


def test_files_without_frequencies() -> None:
    truth, entries = load_script().make_case("plain", encode)
    for category in truth["categories"]:
        category["frequency"] = ""
    source = as_source(truth)
    ids = source.categories.ids
    found = average_precision(
        ground_truth(source), entries, "bbox", category_ids=ids, frequencies=[""] * len(ids)
    ).summary
    assert found["AP"] == pytest.approx(100 * STORED["plain"]["bbox"]["results"]["AP"], abs=6e-4)
    assert [found[name] for name in ("APr", "APc", "APf")] == [None] * 3


def test_errors() -> None:
    truth, entries = load_script().make_case("plain", encode)
    source = as_source(truth)
    message = r"lvis\.json: its annotations are LVIS's, which pycocotools has no metrics for"
    with pytest.raises(ValueError, match=message):
        check_evaluator("pycocotools", source)
    check_evaluator("hotcoco", source)
    arguments: Any = {"category_ids": source.categories.ids, "sigmas": (), "evaluator": "pycocotools"}
    assert isinstance(ground_truth(source), hotcoco.COCO)
    with pytest.raises(ValueError, match="pycocotools has no metrics for LVIS's annotations"):
        evaluate_entries(ground_truth(source), entries, "bbox", lvis=True, **arguments)
