"""Explains a run's metrics: curves, errors by kind, confusions, calibration, and each object's fate.

hotcoco computes all of these (https://derekallman.github.io/hotcoco/guide/diagnostics/) from the evaluation
that also gave the metrics.

Shapes: T IoU or OKS thresholds, R recalls from 0 to 1, K categories, D detections, G objects.
"""

from dataclasses import dataclass
from enum import IntEnum

import hotcoco
import numpy as np
from jaxtyping import Bool, Float, Int

from mrcnn_jax.evaluation.average_precision import percent_of_measured
from mrcnn_jax.evaluation.measured import Measured

IOU = 0.5  # from which a detection counts as correct, in everything here but the curves
# TIDE's errors (arXiv 2008.08115, section 3), in its order.
ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
_SIZES = ("small", "medium", "large")


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision at each recall, interpolated as for AP; -1 where a category has no objects."""

    thresholds: Float[np.ndarray, " t"]
    recalls: Float[np.ndarray, " r"]
    precision: Float[np.ndarray, "t r k"]


@dataclass(frozen=True)
class TideErrors:
    """By name of ``ERRORS``: the AP50 lost to an error, in percent, and how often it occurs.

    The losses do not add up, because each is what mending this error alone would gain.
    """

    lost: dict[str, float]
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often detections of a score are correct, in bins of equal width from 0 to 1."""

    error: float  # expected calibration error: mean distance of score and share, weighted by counts
    scores: Float[np.ndarray, " b"]  # mean score of a bin's detections
    correct: Float[np.ndarray, " b"]  # the share of them that is correct
    counts: Int[np.ndarray, " b"]


class Fate(IntEnum):
    """What became of a detection or an object at an IoU of 0.5."""

    IGNORED = 0  # a crowd, or a detection in one, beyond the limit, or of what is not annotated
    MATCHED = 1
    UNMATCHED = 2  # a false detection, or an object that nothing was found of


@dataclass(frozen=True, eq=False)
class Matching:
    """The evaluator's matches at an IoU of 0.5, whatever the score.

    Detections are matched in order of their scores, so those above any score keep their matches if the others
    are left out.
    """

    detections: Int[np.ndarray, " d"]  # Fate of each entry of the results list
    objects: Int[np.ndarray, " g"]  # Fate of each object of the ground truth
    object_of: Int[np.ndarray, " d"]  # index of the object that a detection is matched to, or -1
    scores: Float[np.ndarray, " d"]

    def found(self, score: float) -> Bool[np.ndarray, " g"]:
        """Whether each object is matched by a detection of at least this score."""
        found = np.zeros(len(self.objects), bool)
        found[self.object_of[(self.detections == Fate.MATCHED) & (self.scores >= score)]] = True
        return found


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Precision and recall if only detections of at least a score are kept."""

    scores: Float[np.ndarray, " s"]  # all different, from high to low
    precision: Float[np.ndarray, " s"]
    recall: Float[np.ndarray, " s"]

    @property
    def f1(self) -> Float[np.ndarray, " s"]:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1)

    @property
    def best(self) -> float | None:
        """The score with the largest F1, of equal ones the highest; None if nothing is correct."""
        return float(self.scores[np.argmax(self.f1)]) if self.f1.any() else None


def curves(measured: Measured) -> Curves:
    """The curves whose means are the AP, over objects of all sizes."""
    params, precision = measured.evaluation.params, measured.evaluation.eval["precision"]
    any_size = params.areaRngLbl.index("all")
    return Curves(
        np.asarray(params.iouThrs), np.asarray(params.recThrs), np.asarray(precision)[..., any_size, 0]
    )


def ap_of_categories(measured: Measured) -> dict[str, list[float | None]]:
    """The AP, AP50, AP75 and AP by size (APs, APm, APl) of each category in percent."""
    params, precision = measured.evaluation.params, measured.evaluation.eval["precision"][..., 0]
    ranges = {name: index for index, name in enumerate(params.areaRngLbl)}
    of_any_size = precision[..., ranges["all"]]
    chosen = {
        "AP": of_any_size,
        "AP50": of_any_size[np.isclose(params.iouThrs, 0.5)],
        "AP75": of_any_size[np.isclose(params.iouThrs, 0.75)],
        **{f"AP{size[0]}": precision[..., ranges[size]] for size in _SIZES if size in ranges},
    }
    labels = range(precision.shape[2])
    return {name: [percent_of_measured(values[:, :, k]) for k in labels] for name, values in chosen.items()}


def tide_errors(measured: Measured) -> TideErrors:
    """TIDE's errors of boxes or masks at an IoU of 0.5, and below 0.1 background."""
    found = measured.evaluation.tide_errors(pos_thr=IOU)
    return TideErrors(
        {name: 100 * float(found["delta_ap"][name]) for name in ERRORS},
        {name: int(found["counts"][name]) for name in ERRORS},
    )


def confusion_matrix(measured: Measured, score: float) -> Int[np.ndarray, "k+1 k+1"]:
    """How many objects of a category (row) were found as another (column) by detections of this score.

    Boxes or masks are matched whatever their categories. The last row counts detections of nothing, the last
    column objects that were not found.
    """
    return measured.evaluation.confusion_matrix(iou_thr=IOU, min_score=score)["matrix"].astype(np.int64)


def calibration(measured: Measured, bins: int = 10) -> Calibration:
    """How far scores are probabilities of being correct."""
    found = measured.evaluation.calibration(n_bins=bins, iou_threshold=IOU)
    columns = ("avg_confidence", "avg_accuracy", "count")
    scores, correct, counts = (np.array([item[name] for item in found["bins"]]) for name in columns)
    return Calibration(float(found["ece"]), scores, correct, counts.astype(np.int64))


def interval_of_difference(
    before: Measured, now: Measured, *, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the change in AP, in percent, over images drawn at random with repetition."""
    found = hotcoco.compare(before.evaluation, now.evaluation, n_bootstrap=resamples, seed=seed)
    interval = found["ci"]["AP"]
    return 100 * float(interval["lower"]), 100 * float(interval["upper"])


def matching(measured: Measured, scores: Float[np.ndarray, " d"], num_objects: int) -> Matching:
    """The fate of each detection and object; ``scores`` are those of the results list that was measured.

    Every entry of the list must have the field of this kind, as it has for boxes and masks.
    """
    found = measured.evaluation.image_diagnostics(iou_thr=IOU)
    detections, object_of = np.zeros(len(scores), np.int64), np.full(len(scores), -1)
    objects = np.zeros(num_objects, np.int64)
    # hotcoco numbers the entries from 1, and ``ground_truth`` numbers the objects so.
    for number, status in found["dt_status"].items():
        detections[number - 1] = Fate.MATCHED if status == "tp" else Fate.UNMATCHED
    for number, status in found["gt_status"].items():
        objects[number - 1] = Fate.MATCHED if status == "matched" else Fate.UNMATCHED
    for number, item in found["dt_match"].items():
        object_of[number - 1] = item - 1
    return Matching(detections, objects, object_of, scores)


def thresholds(
    matches: Matching,
    detections: Bool[np.ndarray, " d"] | None = None,
    objects: Bool[np.ndarray, " g"] | None = None,
) -> Thresholds:
    """Precision and recall at each score at which they change, of some ``detections`` and ``objects``."""
    counted = matches.detections != Fate.IGNORED
    counted_objects = matches.objects != Fate.IGNORED
    if detections is not None:
        counted = counted & detections
    if objects is not None:
        counted_objects = counted_objects & objects
    scores, correct = matches.scores[counted], matches.detections[counted] == Fate.MATCHED
    order = np.argsort(-scores, kind="stable")
    scores, correct = scores[order], correct[order].cumsum()
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of equal scores
    num_objects = int(counted_objects.sum())
    kept = np.arange(1, len(scores) + 1)[last]
    return Thresholds(scores[last], correct[last] / kept, correct[last] / max(num_objects, 1))
