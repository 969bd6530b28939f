"""COCO's average precision (https://cocodataset.org/#detection-eval) of boxes, masks and keypoints.

Shapes, in pycocotools' words: T thresholds of IoU or OKS (.5 to .95), R of recall (0 to 1), K categories, A
ranges of area, M limits of detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_jax.evaluation.quiet import quiet

Kind = Literal["bbox", "segm", "keypoints"]

# Detections per image that count: COCO's limits.
MAX_DETECTIONS = {"bbox": 100, "segm": 100, "keypoints": 20}


@dataclass(frozen=True)
class Precision:
    """COCO's numbers in percent; None where there is no ground truth to measure."""

    summary: dict[str, float | None]  # AP, AP50, AP75, by size (APs, APm, APl), and recall (AR100 or AR20)
    per_category: dict[int, float | None]  # AP by category id


def average_precision(
    truth: COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    *,
    category_ids: Sequence[int],
    sigmas: Sequence[float] = (),
) -> Precision:
    """AP over all images of ``truth`` of the results ``entries`` (as of ``Result.to_coco``).

    Small is an area under 32^2 square pixels, large one over 96^2. The area of a detection, which matters
    only where it matches nothing, is that of its mask for "segm" and of its box otherwise (as in Detectron2).
    Keypoints have no small objects, and need ``sigmas``, the spread of each keypoint. No entries give 0, not
    an error.
    """
    with quiet():
        evaluation = COCOeval(truth, _detections(truth, entries, kind), kind)
        evaluation.params.catIds = list(category_ids)
        evaluation.params.maxDets = [MAX_DETECTIONS[kind]]
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()

    precision = evaluation.eval["precision"][..., 0]  # [T R K A]
    recall = evaluation.eval["recall"][..., 0]  # [T K A]
    ranges = {name: index for index, name in enumerate(evaluation.params.areaRngLbl)}
    thresholds = evaluation.params.iouThrs
    every = ranges["all"]
    summary = {
        "AP": _percent(precision[..., every]),
        "AP50": _percent(precision[np.isclose(thresholds, 0.5)][..., every]),
        "AP75": _percent(precision[np.isclose(thresholds, 0.75)][..., every]),
    }
    for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")):
        if name in ranges:
            summary[f"AP{letter}"] = _percent(precision[..., ranges[name]])
    summary[f"AR{MAX_DETECTIONS[kind]}"] = _percent(recall[..., every])
    # COCOeval sorts its categories.
    per_category = {
        category: _percent(precision[:, :, k, every]) for k, category in enumerate(sorted(set(category_ids)))
    }
    return Precision(summary, per_category)


def _percent(values: np.ndarray) -> float | None:
    measured = values[values > -1]  # -1: no ground truth
    return round(100 * float(measured.mean()), 3) if measured.size else None


def _detections(truth: COCO, entries: Sequence[dict[str, Any]], kind: Kind) -> COCO:
    """What ``COCO.loadRes`` makes of entries, with no entries too, and with the area that fits the kind."""
    annotations = []
    for number, entry in enumerate(entries, start=1):
        if kind not in ("bbox", "segm") and kind not in entry:
            continue
        _, _, width, height = entry["bbox"]
        annotation = {
            "id": number,
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "score": entry["score"],
            "bbox": entry["bbox"],
            "area": width * height,
            "iscrowd": 0,
        }
        if kind == "segm":
            annotation["segmentation"] = entry["segmentation"]
            annotation["area"] = float(mask_utils.area(entry["segmentation"]))
        elif kind == "keypoints":
            annotation["keypoints"] = entry["keypoints"]
        annotations.append(annotation)
    detections = COCO()
    detections.dataset = {
        "images": truth.dataset["images"],
        "categories": truth.dataset["categories"],
        "annotations": annotations,
    }
    detections.createIndex()
    return detections
