"""Workloads for COCO's metrics, ours and pycocotools', on the same synthetic objects and detections.

Images have 480 x 640 pixels and, as in COCO, about 7 objects of 3 among 80 categories (keypoints: persons).
Each has 100 detections, near an object or wrong. A workload goes from a results list in memory to the
summary. The ground truth is prepared beforehand for both, as it is prepared once in a training run.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.benchmarks.timing import Workload
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.evaluators import Kind
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories

_HEIGHT, _WIDTH = 480, 640
_CATEGORIES = 80
_KEYPOINTS = 17
_SIGMAS = tuple(np.linspace(0.025, 0.107, _KEYPOINTS).tolist())
_CORNERS = 24  # of an object's outline
_DETECTIONS = 100  # per image
_STATS: dict[Kind, tuple[int, ...]] = {  # indices of our metrics in pycocotools' stats
    "bbox": (0, 1, 2, 3, 4, 5, 8),
    "segm": (0, 1, 2, 3, 4, 5, 8),
    "keypoints": (0, 1, 2, 3, 4, 5),
}


def evaluate(name: str, images: int) -> tuple[Workload, Workload]:
    """The workload ``evaluation_<kind>``, ours and pycocotools'.

    Raises ``ValueError`` unless their summaries are equal.
    """
    (kind,) = (kind for kind in _STATS if name == f"evaluation_{kind}")
    generator = np.random.default_rng(0)
    dataset = make_dataset(generator, kind, images)
    results = make_results(generator, dataset, kind)
    truth = ground_truth(FolderSource(dataset, mask_grid=0))
    their_truth = COCO()
    their_truth.dataset = truth.dataset
    with contextlib.redirect_stdout(io.StringIO()):
        their_truth.createIndex()

    def ours() -> list[float | None]:
        measured = average_precision(
            truth, results, kind, category_ids=dataset.categories.ids, sigmas=_SIGMAS
        )
        return list(measured.summary.values())

    def theirs() -> list[float | None]:
        """As in pycocotools' own demo."""
        with contextlib.redirect_stdout(io.StringIO()):
            loaded = their_truth.loadRes([dict(entry) for entry in results])  # it modifies the entries
            evaluation = COCOeval(their_truth, loaded, kind)
            if kind == "keypoints":
                evaluation.params.kpt_oks_sigmas = np.array(_SIGMAS)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats = [float(evaluation.stats[index]) for index in _STATS[kind]]
        return [None if stat == -1 else round(100 * stat, 3) for stat in stats]

    if ours() != theirs():
        raise ValueError(f"{kind}: our metrics {ours()} differ from pycocotools' {theirs()}")
    return Workload(name, ours), Workload(name, theirs)


def make_dataset(rng: np.random.Generator, kind: Kind, count: int) -> CocoDataset:
    """Images with objects in numbers and sizes as in COCO."""
    persons = kind == "keypoints"
    num_categories = 1 if persons else _CATEGORIES
    categories = Categories(
        ids=tuple(range(1, num_categories + 1)),
        names=tuple(f"category {number}" for number in range(1, num_categories + 1)),
        keypoint_labels=(1,) if persons else (),
        keypoint_names=tuple(f"point {number}" for number in range(_KEYPOINTS)) if persons else (),
        sigmas=_SIGMAS if persons else (),
    )
    images = []
    for number in range(1, count + 1):
        labels = rng.integers(1, num_categories + 1, 3)
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
    return CocoDataset("synthetic", categories, tuple(images))


def random_box(rng: np.random.Generator) -> np.ndarray:
    """A box x1 y1 x2 y2 with sizes as in COCO: 41 % of the objects are small and 24 % large."""
    side, ratio = np.exp(rng.normal((np.log(50), 0), (1.18, 0.4)))
    size = np.clip((side * ratio, side / ratio), 4, (_WIDTH, _HEIGHT))
    corner = rng.uniform(0, 1, 2) * ((_WIDTH, _HEIGHT) - size)
    return np.concatenate([corner, corner + size])


def ellipse(box: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """An outline [C 2] that fills most of the box; the radii are fractions of its half sides."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    return (box[:2] + box[2:]) / 2 + circle * (box[2:] - box[:2]) / 2


def make_results(rng: np.random.Generator, dataset: CocoDataset, kind: Kind) -> list[dict[str, Any]]:
    """A results list in COCO's format: noisy copies of objects, a third of them with a random category."""
    results = []
    for image in dataset.images:
        for _ in range(_DETECTIONS):
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
    """The ellipse inscribed in a box, as compressed RLE."""
    left, top = low.astype(int)
    columns, rows = np.ceil(high).astype(int) - (left, top)
    x, y = np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)[:, None]
    return Rle.from_crop(
        x**2 + y**2 <= 1, top=int(top), left=int(left), image_size=(_HEIGHT, _WIDTH)
    ).compressed()
