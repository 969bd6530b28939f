"""Average recall of proposals: by hand, and against Detectron2 and pycocotools."""

import contextlib
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.proposal_recall import average_recall, best_overlaps, evaluate_proposals
from mrcnn_jax.evaluation.table import format_metrics
from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.runs.categories import Categories

FIXTURE = Path(__file__).parents[1] / "fixtures" / "detectron2_proposals.npz"


def overlaps_of(proposals, objects, areas, name="AR@100"):
    rows = (np.array(boxes, np.float32).reshape(-1, 4) for boxes in (proposals, objects))
    return best_overlaps(*rows, np.array(areas, np.float32))[name].tolist()


def test_by_hand():
    """Each object gets a proposal of its own, the pair with the largest IoU first."""
    objects = [(0, 0, 10, 10), (0, 0, 10, 8)]
    # IoUs with the two objects: .8 and 1, then .9 and 8/9.
    assert overlaps_of([(0, 0, 10, 8), (0, 0, 10, 9)], objects, [100, 80]) == pytest.approx([1, 0.9])
    # The only proposal goes to the second object, so the first has none.
    assert overlaps_of([(0, 0, 10, 8)], objects, [100, 80]) == [1, 0]


def test_recall_by_hand():
    assert average_recall([1.0]) == 100
    assert average_recall([0.5, 0.0]) == 5  # one of two objects at one of ten thresholds
    assert average_recall([0.74, 0.74, 0.2, 1.0]) == pytest.approx(100 * (5 * 0.75 + 5 * 0.25) / 10)
    assert average_recall([]) is None


def test_only_the_best_proposals_count():
    elsewhere = [(50, 50, 60, 60)] * 100
    objects = [(0, 0, 10, 10)]
    assert overlaps_of([*elsewhere, *objects], objects, [100]) == [0]
    assert overlaps_of([*elsewhere, *objects], objects, [100], "AR@1000") == [1]
    assert overlaps_of([*elsewhere[1:], *objects], objects, [100]) == [1]


def test_sizes_by_area():
    objects = [(0, 0, 10, 10), (20, 0, 60, 40), (0, 100, 200, 300)]
    areas = [1024, 1024.5, 96**2 + 1]  # the file's, which may be smaller than the box
    found = {size: overlaps_of(objects, objects, areas, f"AR{size}@100") for size in ("", "s", "m", "l")}
    assert {size: len(values) for size, values in found.items()} == {"": 3, "s": 1, "m": 2, "l": 1}


def test_no_proposals_and_no_objects():
    assert overlaps_of([], [(0, 0, 1, 1)], [1]) == [0]
    assert overlaps_of([(0, 0, 1, 1)], [], []) == []


def scene(seed):
    """Random objects of two sizes, and proposals near them and elsewhere, best first."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 8))
    corner = rng.uniform(0, 300, (count, 2))
    objects = np.concatenate([corner, corner + rng.uniform(8, 150, (count, 2))], axis=1)
    near = np.repeat(objects, 30, axis=0)
    near = near + rng.normal(0, 0.08, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
    corner = rng.uniform(0, 300, (120, 2))
    proposals = np.concatenate(
        [near, np.concatenate([corner, corner + rng.uniform(5, 90, (120, 2))], axis=1)]
    )
    return rng.permutation(proposals).astype(np.float32), objects.astype(np.float32)


def test_against_detectron2():
    """Its ``_evaluate_box_proposals`` on these scenes; tests/fixtures/detectron2_proposals.py ran it."""
    found = {name: [] for name in best_overlaps(*map(np.zeros, ((0, 4), (0, 4), 0)))}
    for seed in range(20):
        proposals, objects = scene(seed)
        areas = np.prod(objects[:, 2:] - objects[:, :2], axis=1)
        for name, values in best_overlaps(proposals, objects, areas).items():
            found[name] += values.tolist()
    with np.load(FIXTURE) as archive:
        assert set(archive) == set(found)
        for name in archive:
            assert average_recall(found[name]) == pytest.approx(100 * archive[name], abs=1e-3), name
        assert archive["AR@100"] < archive["AR@1000"] and archive["ARs@1000"] < archive["ARl@1000"]


def test_against_pycocotools():
    """Of objects far apart, with a proposal each, the matching makes no difference."""
    rng = np.random.default_rng(0)
    corner = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2) * 200.0
    objects = np.concatenate([corner, corner + rng.uniform(10, 150, (25, 2))], axis=1).astype(np.float32)
    proposals = objects + rng.normal(0, 4, objects.shape).astype(np.float32)
    areas = np.prod(objects[:, 2:] - objects[:, :2], axis=1).astype(np.float32)

    def entries(boxes, **more):
        return [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], **more}
            for i, (x1, y1, x2, y2) in enumerate(boxes.tolist(), start=1)
        ]

    truth = [
        entry | {"area": area}
        for entry, area in zip(entries(objects, iscrowd=0), areas.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": truth}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(entries(proposals, score=0.5)), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0, :, 0].mean(axis=0)  # [A]
    found = best_overlaps(proposals, objects, areas)
    for size, expected in zip(("", "s", "m", "l"), recall, strict=True):
        assert average_recall(found[f"AR{size}@100"]) == pytest.approx(100 * expected, abs=1e-3)


class Scripted:
    """Proposes the given boxes in every image."""

    config = Config()

    def __init__(self, boxes):
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def stream(self, read, sizes):
        for index in reversed(range(len(sizes))):
            read(index)
            yield index, ImageProposals(self.boxes, np.zeros(len(self.boxes), np.float32))


class Source(FolderSource):
    """Images that are not read from files."""

    def read(self, index):
        class Picture:
            pixels = None

        return Picture


def annotation(number, box, **more):
    return CocoAnnotation(id=number, label=1, box=box, crowd=False, segmentation=None, keypoints=None, **more)


def test_crowds_are_left_out_and_areas_are_the_files():
    images = tuple(
        CocoImage(number, Path("a.png"), "a.png", 100, 100, annotations)
        for number, annotations in enumerate(
            [
                (annotation(1, (0.0, 0.0, 50.0, 50.0), area=1000.0), annotation(2, (0.0, 0.0, 9.0, 90.0))),
                (dataclasses.replace(annotation(3, (0.0, 0.0, 50.0, 50.0)), crowd=True),),
            ]
        )
    )
    source = Source(CocoDataset("made up", Categories((1,), ("thing",)), images), mask_grid=0)
    metrics = evaluate_proposals(Scripted([(0, 0, 50, 50)]), source)
    assert metrics["proposals"]["AR@100"] == 50 and metrics["proposals"]["ARs@1000"] == 50
    assert metrics["proposals"]["ARm@100"] is metrics["proposals"]["ARl@100"] is None
    assert format_metrics(metrics).splitlines() == [
        "                    AR     ARs     ARm     ARl",
        "100 proposals     50.0    50.0       -       -",
        "1000 proposals    50.0    50.0       -       -",
    ]
