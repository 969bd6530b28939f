"""COCO's average precision (https://cocodataset.org/#detection-eval) of boxes, masks and keypoints.

Also LVIS's (https://www.lvisdataset.org/challenge) of boxes and masks.

Shapes, as in pycocotools: T IoU or OKS thresholds (.5 to .95), R recall thresholds (0 to 1), K categories, A
area ranges, M limits on detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from mrcnn_jax.data.federated import FREQUENCIES
from mrcnn_jax.evaluation.evaluators import (
    MAX_DETECTIONS,
    MAX_LVIS_DETECTIONS,
    Evaluator,
    Kind,
    evaluate_entries,
)


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's metrics in percent; None where there is no ground truth."""

    # AP, AP50, AP75, AP by size (APs, APm, APl) and in LVIS by frequency (APr, APc, APf), recall (AR100, AR20
    # or AR300).
    summary: dict[str, float | None]
    per_category: dict[int, float | None]  # category id -> AP


def average_precision(
    truth: hotcoco.COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    *,
    category_ids: Sequence[int],
    sigmas: Sequence[float] = (),
    evaluator: Evaluator = "hotcoco",
    frequencies: Sequence[str] | None = None,
) -> CocoMetrics:
    """The metrics of the results ``entries`` (as from ``Result.to_coco``) over all images of ``truth``.

    Objects are small below an area of 32^2 square pixels and large above 96^2. The area of a detection, which
    matters only if it matches nothing, is that of its mask for "segm" and of its box otherwise (as in
    Detectron2). Keypoint metrics have no size class "small" and need ``sigmas``, one per keypoint; entries
    without keypoints are ignored. An empty list of entries gives 0, not an error.

    ``frequencies``, "r", "c" or "f" for each of ``category_ids``, asks for LVIS's metrics instead, which also
    have the AP of rare, common and frequent categories, and 300 detections per image. Raises the errors of
    ``evaluate_entries``.
    """
    evaluation = evaluate_entries(
        truth,
        entries,
        kind,
        category_ids=sorted(set(category_ids)),
        sigmas=sigmas,
        evaluator=evaluator,
        lvis=frequencies is not None,
    )
    return metrics_of(evaluation, kind, category_ids=category_ids, frequencies=frequencies)


def metrics_of(
    evaluation: Any, kind: Kind, *, category_ids: Sequence[int], frequencies: Sequence[str] | None = None
) -> CocoMetrics:
    """The metrics of what ``evaluate_entries`` returned for these categories; see ``average_precision``."""
    lvis = frequencies is not None
    categories = sorted(set(category_ids))
    precision = evaluation.eval["precision"][..., 0]  # [T R K A]
    recall = evaluation.eval["recall"][..., 0]  # [T K A]
    ranges = {name: index for index, name in enumerate(evaluation.params.areaRngLbl)}
    thresholds = evaluation.params.iouThrs
    any_size = ranges["all"]
    summary = {
        "AP": percent_of_measured(precision[..., any_size]),
        "AP50": percent_of_measured(precision[np.isclose(thresholds, 0.5)][..., any_size]),
        "AP75": percent_of_measured(precision[np.isclose(thresholds, 0.75)][..., any_size]),
    }
    for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")):
        if name in ranges:
            summary[f"AP{letter}"] = percent_of_measured(precision[..., ranges[name]])
    if frequencies is not None:
        frequency_of = dict(zip(category_ids, frequencies, strict=True))
        for letter in FREQUENCIES:
            chosen = [frequency_of[category] == letter for category in categories]
            summary[f"AP{letter}"] = percent_of_measured(precision[:, :, chosen, any_size])
    limit = MAX_LVIS_DETECTIONS if lvis else MAX_DETECTIONS[kind]
    summary[f"AR{limit}"] = percent_of_measured(recall[..., any_size])
    per_category = {
        category: percent_of_measured(precision[:, :, k, any_size]) for k, category in enumerate(categories)
    }
    return CocoMetrics(summary, per_category)


def percent_of_measured(values: np.ndarray) -> float | None:
    """The mean of an evaluator's precisions or recalls in percent; None if nothing was measured."""
    measured = values[values > -1]  # -1 means no ground truth
    return round(100 * float(measured.mean()), 3) if measured.size else None
