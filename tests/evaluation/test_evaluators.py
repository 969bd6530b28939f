from dataclasses import replace
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.evaluators import Kind, evaluate_entries
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

KINDS: tuple[Kind, ...] = ("bbox", "segm", "keypoints")
HEIGHT, WIDTH = 150, 200
NO_MASK = Rle(HEIGHT, WIDTH, np.array([HEIGHT * WIDTH]))


def random_dataset(rng: np.random.Generator) -> CocoDataset:
    """Images with few or no objects, covering all fields of annotations and areas on the size limits."""
    count, points = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    categories = Categories(
        ids=tuple(rng.permutation(20)[:count].tolist()),
        names=tuple("abcde"[:count]),
        keypoint_labels=tuple(range(1, 1 + int(rng.integers(1, count + 1)))),
        keypoint_names=tuple("vwxyz"[:points]),
        sigmas=tuple(rng.uniform(0.02, 0.2, points).tolist()),
    )
    images = []
    for number in rng.permutation(30)[: rng.integers(1, 6)].tolist():
        annotations = []
        for place in range(int(rng.choice([0, 1, 3, 8]))):
            box = random_box(rng)
            label = int(rng.integers(1, max(2, count)))  # the last category mostly has no objects
            keypoints = None
            if label in categories.keypoint_labels and rng.random() < 0.8:
                keypoints = np.zeros((points, 3), np.float32)
                keypoints[:, :2] = rng.uniform(box[:2], box[2:], (points, 2))
                keypoints[:, 2] = rng.integers(0, 3, points)
            area = [None, 32.0**2, 96.0**2, float(rng.uniform(0, 20_000))][rng.integers(4)]
            annotations.append(
                CocoAnnotation(
                    id=place + 100 * number,
                    label=label,
                    box=(box[0], box[1], box[2], box[3]),
                    crowd=bool(rng.random() < 0.2),
                    segmentation=random_segmentation(rng, box),
                    keypoints=keypoints,
                    area=area,
                )
            )
        images.append(
            CocoImage(
                id=number,
                path=Path("a.png"),
                file_name="a.png",
                height=HEIGHT,
                width=WIDTH,
                annotations=tuple(annotations),
            )
        )
    return CocoDataset(name="made up", categories=categories, images=tuple(images))


def truth_of(dataset: CocoDataset) -> hotcoco.COCO:
    return ground_truth(FolderSource(dataset, mask_grid=0))


def random_box(rng: np.random.Generator) -> list[float]:
    """x1 y1 x2 y2; one in three has integer corners and a fixed size."""
    if rng.random() < 1 / 3:
        x, y = rng.integers(0, (WIDTH - 32, HEIGHT - 32)).tolist()
        return [x, y, x + 32, y + 32]
    size = np.exp(rng.uniform(0, np.log((WIDTH, HEIGHT))))
    low = rng.uniform(0, 1, 2) * ((WIDTH, HEIGHT) - size)
    return [*low.tolist(), *(low + size).tolist()]


def random_segmentation(rng: np.random.Generator, box: list[float]) -> Any:
    """None, an RLE, or one or two polygons."""
    kind = rng.integers(4)
    if kind == 0:
        return None
    if kind == 1:
        return random_mask(rng, box)
    return tuple(rng.uniform(box[:2], box[2:], (int(rng.integers(3, 9)), 2)) for _ in range(kind - 1))


def random_mask(rng: np.random.Generator, box: list[float]) -> Rle:
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    crop = rng.random((y2 - y1, x2 - x1)) < rng.choice([0.1, 0.8, 1.0])
    return Rle.from_crop(crop, top=y1, left=x1, image_size=(HEIGHT, WIDTH))


def random_entries(rng: np.random.Generator, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Detections near objects and elsewhere: tied scores, duplicates, more per image than count."""
    categories = dataset.categories
    entries: list[dict[str, Any]] = []
    for image in dataset.images:
        for _ in range(int(rng.choice([0, 2, 30, 130]))):
            label = int(rng.integers(1, len(categories) + 1))
            box, mask = random_box(rng), NO_MASK
            points = rng.uniform(0, (WIDTH, HEIGHT), (len(categories.keypoint_names), 2))
            if image.annotations and rng.random() < 0.7:
                thing = image.annotations[rng.integers(len(image.annotations))]
                label, box = thing.label, list(thing.box)
                if rng.random() < 0.7:
                    box = np.clip(box + rng.normal(0, 3, 4), 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
                    box = [*np.minimum(box[:2], box[2:]).tolist(), *np.maximum(box[:2], box[2:]).tolist()]
                if thing.keypoints is not None:
                    points = thing.keypoints[:, :2] + rng.normal(0, rng.choice([0, 1, 5]), points.shape)
            if rng.random() < 0.9:
                mask = random_mask(rng, box)
            entry = {
                "image_id": image.id,
                "category_id": categories.ids[label - 1],
                "bbox": [round(value, 3) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": round(float(rng.random()), int(rng.integers(1, 4))),
                "segmentation": mask.compressed(),
            }
            if label in categories.keypoint_labels:
                entry["keypoints"] = [value for x, y in points.round(3).tolist() for value in (x, y, 1)]
            entries += [entry] * int(rng.choice([1, 1, 1, 2]))
    return entries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_both_evaluators_give_the_same_arrays(
    seed: int, kind: Kind, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    dataset = random_dataset(rng)
    entries = random_entries(rng, dataset)
    truth = truth_of(dataset)
    categories = dataset.categories
    labels = categories.keypoint_labels if kind == "keypoints" else range(1, len(categories) + 1)
    ids = sorted(categories.ids[label - 1] for label in labels)
    before = repr(entries), repr(truth.dataset)
    ours, theirs = (
        evaluate_entries(
            truth, entries, kind, category_ids=ids, sigmas=categories.sigmas, evaluator=evaluator
        )
        for evaluator in ("hotcoco", "pycocotools")
    )
    np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"], strict=True)
    np.testing.assert_array_equal(ours.eval["recall"], theirs.eval["recall"], strict=True)
    assert ours.params.areaRngLbl == theirs.params.areaRngLbl
    np.testing.assert_array_equal(ours.params.iouThrs, theirs.params.iouThrs)
    assert (repr(entries), repr(truth.dataset)) == before
    assert capfd.readouterr() == ("", "")


BALLS = Categories(ids=(0,), names=("ball",))
BALL = CocoAnnotation(0, 1, (10.0, 10.0, 60.0, 60.0), crowd=False, segmentation=None, keypoints=None)


def one_image(number: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH), **changes: Any) -> CocoDataset:
    annotation = replace(BALL, **changes)
    return CocoDataset("made up", BALLS, (CocoImage(number, Path("a.png"), "a.png", *size, (annotation,)),))


def both(dataset: CocoDataset, entries: list[dict[str, Any]], kind: Kind) -> np.ndarray:
    """The precision [T R K A M], after checking that both evaluators agree on it."""
    truth = truth_of(dataset)
    ours, theirs = (
        evaluate_entries(truth, entries, kind, category_ids=[0], sigmas=(), evaluator=evaluator)
        for evaluator in ("hotcoco", "pycocotools")
    )
    np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"], strict=True)
    return ours.eval["precision"]


@pytest.mark.parametrize("number", [0, 2**53])
def test_smallest_and_largest_id(number: int) -> None:
    found = [{"image_id": number, "category_id": 0, "score": 0.5, "bbox": [10.0, 10.0, 50.0, 50.0]}]
    assert both(one_image(number), found, "bbox")[:, :, 0, 0, 0].min() > 0.999


def test_mask_of_a_very_large_image() -> None:
    """More pixels than a signed 32-bit integer can count."""
    size = 50_000, 50_000
    crop = np.ones((60, 50), bool)
    inner = Rle.from_crop(crop[:54], top=49_940, left=49_950, image_size=size)  # 0.9 of the object
    thing = one_image(size=size, segmentation=Rle.from_crop(crop, top=49_940, left=49_950, image_size=size))
    found = [{"image_id": 0, "category_id": 0, "score": 0.5, "segmentation": inner.compressed()}]
    assert both(thing, found, "segm")[:, 0, 0, 0, 0].round(9).tolist() == [1.0] * 9 + [0.0]


@pytest.mark.parametrize("rank", [99, 100])
def test_only_the_best_hundred_count(rank: int) -> None:
    entry = {"image_id": 0, "category_id": 0, "score": 0.5, "bbox": [10.0, 10.0, 50.0, 50.0]}
    entries = [entry | {"bbox": [100.0, 100.0, 20.0, 20.0]}] * 130
    entries[rank] = entry  # ties go to the earlier entries
    assert both(one_image(), entries, "bbox")[0, 0, 0, 0, 0] == (0.01 if rank == 99 else 0)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bbox", {"image_id": 7}, r"images that are not in the ground truth: \[7\]"),
        ("bbox", {"bbox": [1, 2, 3]}, "reshape"),
        ("bbox", {"score": float("nan")}, "NaN score"),
        ("segm", {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oooo"}}, "invalid RLE"),
        ("segm", {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~\x01"}}, "invalid RLE"),
        ("segm", {"segmentation": {"size": [5, 6], "counts": NO_MASK.compressed()["counts"]}}, "exceed h"),
        ("keypoints", {"keypoints": ["a"]}, "'keypoints': must be real number"),
    ],
)
def test_malformed_entry_is_an_error(kind: Kind, change: dict[str, Any], message: str) -> None:
    entry = {"image_id": 0, "category_id": 0, "score": 0.5, "bbox": [1, 2, 3, 4], **change}
    with pytest.raises(ValueError, match=message):
        evaluate_entries(
            truth_of(one_image()), [entry], kind, category_ids=[0], sigmas=(), evaluator="hotcoco"
        )
