"""Computes COCO's metrics with hotcoco, or with pycocotools as a check, and LVIS's with hotcoco.

pycocotools defines COCO's but is many times slower (docs/benchmarks.md). The results are bit-identical. Those
of LVIS equal the ``lvis`` package's.

Shapes, as in pycocotools: T IoU or OKS thresholds, R recall thresholds, K categories, A area ranges, M limits
on detections per image.
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import hotcoco
import numpy as np
from hotcoco import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Kind = Literal["bbox", "segm", "keypoints"]
Evaluator = Literal["hotcoco", "pycocotools"]

# COCO's limits on the detections per image and category that count.
MAX_DETECTIONS = {"bbox": 100, "segm": 100, "keypoints": 20}

# LVIS's limit on the detections per image, of all categories together.
MAX_LVIS_DETECTIONS = 300

# The field an entry must have to be evaluated as this kind.
_FIELD = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def evaluate_entries(
    truth: hotcoco.COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    *,
    category_ids: Sequence[int],
    sigmas: Sequence[float],
    evaluator: Evaluator,
    lvis: bool = False,
) -> Any:
    """The evaluator's ``COCOeval`` after it has evaluated and accumulated the results list.

    Its ``eval["precision"]`` [T R K A M] and ``eval["recall"]`` [T K A M] have M = 1 and the categories in
    ascending id order. The area of a detection is that of its mask for "segm" and of its box otherwise.

    With ``lvis``, ``truth`` has the fields of LVIS, and the rules are LVIS's: only detections of categories
    that an image is annotated for count, and of those that are not annotated exhaustively only the correct
    ones.

    Raises ``ValueError`` for an entry whose image is not in ``truth``, for pycocotools with ``lvis``, and,
    with hotcoco, for a malformed entry (pycocotools may hang on a damaged RLE).
    """
    if lvis and evaluator == "pycocotools":
        raise ValueError("pycocotools has no metrics for LVIS's annotations; use the evaluator hotcoco")
    entries = [entry for entry in entries if _FIELD[kind] in entry]
    unknown = sorted({entry["image_id"] for entry in entries}.difference(truth.get_img_ids()))
    if unknown:
        raise ValueError(f"results for images that are not in the ground truth: {unknown[:5]}")
    prepare = _by_pycocotools if evaluator == "pycocotools" else partial(_by_hotcoco, lvis=lvis)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = prepare(truth, entries, kind)
        evaluation.params.catIds = list(category_ids)
        evaluation.params.maxDets = [MAX_LVIS_DETECTIONS if lvis else MAX_DETECTIONS[kind]]
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def that_count(entries: list[dict[str, Any]], annotated: Collection[int]) -> list[dict[str, Any]]:
    """The results of one image that LVIS's metrics look at, the best first.

    ``annotated`` are the ids of the categories that the image is annotated for.
    """
    best = sorted(entries, key=itemgetter("score"), reverse=True)[:MAX_LVIS_DETECTIONS]
    return [entry for entry in best if entry["category_id"] in annotated]


def _by_hotcoco(truth: hotcoco.COCO, entries: list[dict[str, Any]], kind: Kind, *, lvis: bool = False) -> Any:
    if kind == "keypoints":
        # Only 20 of up to 100 per image count; reading the rest would take most of the time. Areas are those
        # of the boxes.
        detections = truth.load_res(_top_scoring(entries, MAX_DETECTIONS[kind]))
    else:  # as columns, which are read in half the time
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
    return hotcoco.COCOeval(truth, detections, kind, lvis_style=lvis)


def _top_scoring(entries: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The ``count`` best entries per image and category; ties go to the earlier ones, as in pycocotools."""
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
        # loadRes uses the area of the box if there is one, and adds fields to the entries it is given.
        dropped = "bbox" if kind == "segm" else None
        copies = [{name: value for name, value in entry.items() if name != dropped} for entry in entries]
        detections = objects.loadRes(copies)
    else:  # loadRes does not accept an empty list
        detections.dataset = {**objects.dataset, "annotations": []}
        detections.createIndex()
    return COCOeval(objects, detections, kind)
