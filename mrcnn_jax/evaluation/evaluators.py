"""The two systems that compute COCO's metrics: hotcoco, and pycocotools as its check.

Pycocotools defines the metrics, and is many times slower (docs/benchmarks.md). What the two give is equal,
bit by bit.

Shapes, in pycocotools' words: T thresholds of IoU or OKS, R of recall, K categories, A ranges of area, M
limits of detections per image.
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Literal

import hotcoco
import numpy as np
from hotcoco import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Kind = Literal["bbox", "segm", "keypoints"]
Evaluator = Literal["hotcoco", "pycocotools"]

# Detections per image and category that count: COCO's limits.
MAX_DETECTIONS = {"bbox": 100, "segm": 100, "keypoints": 20}

# Without which an entry is none of the kind.
_FIELD = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def evaluate_entries(
    truth: hotcoco.COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    *,
    category_ids: Sequence[int],
    sigmas: Sequence[float],
    evaluator: Evaluator,
) -> Any:
    """The ``COCOeval`` of either system that has evaluated and accumulated a results list.

    Its ``eval["precision"]`` [T R K A M] and ``eval["recall"]`` [T K A M] have M = 1, and the categories in
    the order of their ids. The area of a detection is that of its mask for "segm" and of its box otherwise.
    Raises ``ValueError`` for an entry of an image that ``truth`` does not have, and hotcoco for one that is
    malformed (pycocotools may hang on a damaged RLE).
    """
    entries = [entry for entry in entries if _FIELD[kind] in entry]
    unknown = sorted({entry["image_id"] for entry in entries}.difference(truth.get_img_ids()))
    if unknown:
        raise ValueError(f"results of images that the ground truth does not have: {unknown[:5]}")
    prepare = _by_pycocotools if evaluator == "pycocotools" else _by_hotcoco
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        evaluation = prepare(truth, entries, kind)
        evaluation.params.catIds = list(category_ids)
        evaluation.params.maxDets = [MAX_DETECTIONS[kind]]
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _by_hotcoco(truth: hotcoco.COCO, entries: list[dict[str, Any]], kind: Kind) -> Any:
    if kind == "keypoints":  # 20 of 100 of an image count: most of the time would go to reading the others
        detections = truth.load_res(_best(entries, MAX_DETECTIONS[kind]))  # with the areas of their boxes
    else:  # in columns, which are read in half the time
        columns = np.zeros((len(entries), 7))  # image, x, y, width, height, score, category
        columns[:, 0] = [entry["image_id"] for entry in entries]
        columns[:, 5] = [entry["score"] for entry in entries]
        columns[:, 6] = [entry["category_id"] for entry in entries]
        if kind == "bbox":
            columns[:, 1:5] = np.reshape([entry["bbox"] for entry in entries], (-1, 4))
            detections = truth.load_res(columns)
        else:
            masks = [entry["segmentation"] for entry in entries]
            detections = truth.load_res(columns, segmentation=masks)
            detections.update_anns(ids=np.arange(1, len(entries) + 1), area=mask.area(masks))
    return hotcoco.COCOeval(truth, detections, kind)


def _best(entries: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The best of each image and category; of equal ones, as by pycocotools, those that come first."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry["image_id"], entry["category_id"]].append(entry)
    score = itemgetter("score")
    return [entry for group in groups.values() for entry in sorted(group, key=score, reverse=True)[:count]]


def _by_pycocotools(truth: hotcoco.COCO, entries: list[dict[str, Any]], kind: Kind) -> Any:
    objects, detections = COCO(), COCO()
    objects.dataset = truth.dataset  # a copy, to which COCOeval adds
    objects.createIndex()
    if entries:
        # loadRes takes the area from the box where there is one, and adds to what it is given.
        unread = "bbox" if kind == "segm" else None
        copies = [{name: value for name, value in entry.items() if name != unread} for entry in entries]
        detections = objects.loadRes(copies)
    else:  # which loadRes does not take
        detections.dataset = {**objects.dataset, "annotations": []}
        detections.createIndex()
    return COCOeval(objects, detections, kind)
