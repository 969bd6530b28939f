"""COCO's average precision (https://cocodataset.org/#detection-eval) of boxes, masks and keypoints.

Shapes, in pycocotools' words: T thresholds of IoU or OKS (.5 to .95), R of recall (0 to 1), K categories, A
ranges of area, M limits of detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from mrcnn_jax.evaluation.evaluators import MAX_DETECTIONS, Evaluator, Kind, evaluate_entries


@dataclass(frozen=True)
class Precision:
    """COCO's numbers in percent; None where there is no ground truth to measure."""

    summary: dict[str, float | None]  # AP, AP50, AP75, by size (APs, APm, APl), and recall (AR100 or AR20)
    per_category: dict[int, float | None]  # AP by category id


def average_precision(
    truth: hotcoco.COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    *,
    category_ids: Sequence[int],
    sigmas: Sequence[float] = (),
    evaluator: Evaluator = "hotcoco",
) -> Precision:
    """AP over all images of ``truth`` of the results ``entries`` (as of ``Result.to_coco``).

    Small is an area under 32^2 square pixels, large one over 96^2. The area of a detection, which matters
    only where it matches nothing, is that of its mask for "segm" and of its box otherwise (as in Detectron2).
    Keypoints have no small objects, and need ``sigmas``, the spread of each keypoint; entries without
    keypoints are left out. No entries give 0, not an error.
    """
    categories = sorted(set(category_ids))
    evaluation = evaluate_entries(
        truth, entries, kind, category_ids=categories, sigmas=sigmas, evaluator=evaluator
    )
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
    per_category = {category: _percent(precision[:, :, k, every]) for k, category in enumerate(categories)}
    return Precision(summary, per_category)


def _percent(values: np.ndarray) -> float | None:
    measured = values[values > -1]  # -1: no ground truth
    return round(100 * float(measured.mean()), 3) if measured.size else None
