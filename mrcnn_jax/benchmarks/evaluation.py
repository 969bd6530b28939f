"""Times COCO's metrics here and in pycocotools, on the same made-up objects and detections.

    python tests/parity/evaluation_speed.py

500 images of 480 x 640 pixels with about 7 objects of 3 among 80 categories, as in COCO (keypoints: persons),
and 100 detections each, near an object or a wrong one: 50,000, made by seed. Timed are, for each kind and in
turn, ``average_precision``, and pycocotools' ``loadRes``, ``evaluate``, ``accumulate`` and ``summarize``:
both begin with a results list in memory and end with the summary, whose numbers have to be equal. The ground
truth is made beforehand for both, as it is made once in a training run. Printed are medians of the seconds
that passed and, in brackets, of the processor's, which other work on the machine lengthens less.
"""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.evaluators import Kind
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.rle import Rle
from mrcnn_jax.types import Categories

_IMAGES = flags.DEFINE_integer("images", 500, "images", lower_bound=1)
_DETECTIONS = flags.DEFINE_integer("detections", 100, "detections of each image", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "measurements of each", lower_bound=1)

_HEIGHT, _WIDTH = 480, 640
_CATEGORIES = 80
_KEYPOINTS = 17
_SIGMAS = tuple(np.linspace(0.025, 0.107, _KEYPOINTS).tolist())
_CORNERS = 24  # of the outline of an object
_PLACES = {  # of our numbers in pycocotools' stats
    "bbox": (0, 1, 2, 3, 4, 5, 8),
    "segm": (0, 1, 2, 3, 4, 5, 8),
    "keypoints": (0, 1, 2, 3, 4, 5),
}
KINDS: tuple[Kind, ...] = ("bbox", "segm", "keypoints")


def make_dataset(rng: np.random.Generator, kind: Kind) -> CocoDataset:
    """Objects of COCO's number and range of sizes."""
    persons = kind == "keypoints"
    count = 1 if persons else _CATEGORIES
    categories = Categories(
        ids=tuple(range(1, count + 1)),
        names=tuple(f"category {number}" for number in range(1, count + 1)),
        keypoint_labels=(1,) if persons else (),
        keypoint_names=tuple(f"point {number}" for number in range(_KEYPOINTS)) if persons else (),
        sigmas=_SIGMAS if persons else (),
    )
    images = []
    for number in range(1, _IMAGES.value + 1):
        labels = rng.integers(1, count + 1, 3)
        annotations = []
        for place in range(rng.geometric(1 / 7.3)):
            box = random_box(rng)
            x1, y1, x2, y2 = box
            outline = ellipse(box, rng.uniform(0.8, 1, _CORNERS))
            points = None
            if persons:
                points = np.zeros((_KEYPOINTS, 3), np.float32)
                points[:, :2] = rng.uniform(box[:2], box[2:], (_KEYPOINTS, 2))
                points[:, 2] = rng.integers(0, 3, _KEYPOINTS)
            annotations.append(
                CocoAnnotation(
                    id=1000 * number + place,
                    label=int(rng.choice(labels)),
                    box=(x1, y1, x2, y2),
                    crowd=bool(rng.random() < 0.01),
                    area=0.7 * (x2 - x1) * (y2 - y1),
                    segmentation=(outline,),
                    keypoints=points,
                )
            )
        path = Path(f"{number:012}.jpg")
        images.append(CocoImage(number, path, path.name, _HEIGHT, _WIDTH, tuple(annotations)))
    return CocoDataset("made up", categories, tuple(images))


def random_box(rng: np.random.Generator) -> np.ndarray:
    """x1 y1 x2 y2 of COCO's sizes: 41 % of the objects are small and 24 % large."""
    side, ratio = np.exp(rng.normal((np.log(50), 0), (1.18, 0.4)))
    size = np.clip((side * ratio, side / ratio), 4, (_WIDTH, _HEIGHT))
    corner = rng.uniform(0, 1, 2) * ((_WIDTH, _HEIGHT) - size)
    return np.concatenate([corner, corner + size])


def ellipse(box: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The outline [C 2] of what fills most of the box; the radii are shares of its halves."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    return (box[:2] + box[2:]) / 2 + circle * (box[2:] - box[:2]) / 2


def make_results(rng: np.random.Generator, dataset: CocoDataset, kind: Kind) -> list[dict[str, Any]]:
    """Detections as a results list in COCO's format: noisy objects, a third of them in a wrong category."""
    results = []
    for image in dataset.images:
        for _ in range(_DETECTIONS.value):
            box, label, points = random_box(rng), 1, np.zeros((_KEYPOINTS, 3))
            if image.annotations:
                thing = image.annotations[rng.integers(len(image.annotations))]
                side = np.subtract(thing.box[2:], thing.box[:2])
                box = np.array(thing.box) + rng.normal(0, 0.1, 4) * np.tile(side, 2)
                label = thing.label
                if thing.keypoints is not None:
                    points = thing.keypoints + rng.normal(0, 0.05, (_KEYPOINTS, 3)) * (*side, 0)
            if rng.random() < 1 / 3:
                label = int(rng.integers(1, len(dataset.categories) + 1))
            low = np.clip(box[:2], 0, (_WIDTH - 2, _HEIGHT - 2))
            high = np.clip(box[2:], low + 1, (_WIDTH, _HEIGHT))
            x, y, width, height = [round(value, 3) for value in (*low.tolist(), *(high - low).tolist())]
            entry: dict[str, Any] = {
                "image_id": image.id,
                "category_id": dataset.categories.ids[label - 1],
                "score": round(float(rng.random()), 6),
            }
            if kind != "segm":
                entry["bbox"] = [x, y, width, height]
            else:
                entry["segmentation"] = mask(low, high)
            if kind == "keypoints":
                entry["keypoints"] = points.round(3).ravel().tolist()
            results.append(entry)
    return results


def mask(low: np.ndarray, high: np.ndarray) -> Any:
    """The ellipse in a box, as compressed RLE."""
    left, top = low.astype(int)
    columns, rows = np.ceil(high).astype(int) - (left, top)
    x, y = np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)[:, None]
    return Rle.from_crop(
        x**2 + y**2 <= 1, top=int(top), left=int(left), image_size=(_HEIGHT, _WIDTH)
    ).compressed()


def by_pycocotools(truth: COCO, results: list[dict[str, Any]], kind: Kind) -> list[float]:
    """As in pycocotools' own demonstration."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(_SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, Any]:
    """Seconds that passed and of the processor [2], and what the function returned."""
    start = np.array([time.perf_counter(), time.process_time()])
    value = function(*arguments)
    return np.array([time.perf_counter(), time.process_time()]) - start, value


def by_us(truth: Any, dataset: CocoDataset, results: list[dict[str, Any]], kind: Kind) -> list[float | None]:
    ids = dataset.categories.ids
    precision = average_precision(truth, results, kind, category_ids=ids, sigmas=_SIGMAS)
    return list(precision.summary.values())


def main(_: list[str]) -> None:
    for kind in KINDS:
        rng = np.random.default_rng(0)
        dataset = make_dataset(rng, kind)
        results = make_results(rng, dataset, kind)
        truth = ground_truth(dataset)
        seconds: dict[str, list[np.ndarray]] = {"ours": [], "pycocotools": []}
        for _ in range(_REPEATS.value):
            own, measured = timed(by_us, truth, dataset, results, kind)
            same_truth, entries = COCO(), [dict(entry) for entry in results]  # loadRes adds to them
            same_truth.dataset = truth.dataset
            with contextlib.redirect_stdout(io.StringIO()):
                same_truth.createIndex()
            other, stats = timed(by_pycocotools, same_truth, entries, kind)
            seconds["ours"].append(own)
            seconds["pycocotools"].append(other)
            expected = [round(100 * float(stats[place]), 3) for place in _PLACES[kind]]
            if measured != expected:
                raise SystemExit(f"{kind}: {measured} here, {expected} by pycocotools")
        (ours, cpu), (theirs, their_cpu) = (np.median(values, axis=0) for values in seconds.values())
        print(
            f"{kind:<10} {ours:.3f} s ({cpu:.3f}) here, {theirs:.2f} s ({their_cpu:.2f}) pycocotools: "
            f"{theirs / ours:.0f} times ({their_cpu / cpu:.0f})",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
