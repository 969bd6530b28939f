"""Measures a data source's results, kind by kind: what ``evaluate`` returns and a report explains."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco

from mrcnn_jax.config import Config
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.average_precision import CocoMetrics, metrics_of
from mrcnn_jax.evaluation.evaluators import Evaluator, Kind, evaluate_entries
from mrcnn_jax.runs.categories import Categories


@dataclass(frozen=True, eq=False)
class Measured:
    """The metrics of one kind, and the evaluator's ``COCOeval`` that they come from."""

    kind: Kind
    labels: tuple[int, ...]  # that have this kind; the COCOeval's categories, in this order
    evaluation: Any
    metrics: CocoMetrics


def kinds_of(config: Config, source: DataSource) -> list[Kind]:
    """What is measured of a run on a source: boxes, and masks and keypoints where both have them."""
    kinds: list[Kind] = ["bbox"]
    if config.model.mask and _has_masks(source):
        kinds.append("segm")
    if has_keypoints(config, source):
        kinds.append("keypoints")
    return kinds


def measure(
    truth: hotcoco.COCO,
    entries: Sequence[dict[str, Any]],
    kind: Kind,
    source: DataSource,
    *,
    evaluator: Evaluator = "hotcoco",
) -> Measured:
    """The metrics of a results list on the source, whose ``ground_truth`` is ``truth``.

    Keypoints are measured over the categories that have them. Raises the errors of ``evaluate_entries``.
    """
    categories, federated = source.categories, source.federated
    labels = categories.keypoint_labels if kind == "keypoints" else range(1, len(categories) + 1)
    by_id = sorted(labels, key=lambda label: categories.ids[label - 1])
    ids = [categories.ids[label - 1] for label in by_id]
    evaluation = evaluate_entries(
        truth,
        entries,
        kind,
        category_ids=ids,
        sigmas=categories.sigmas,
        evaluator=evaluator,
        lvis=federated is not None,
    )
    frequencies = None if federated is None else [federated.frequencies[label - 1] for label in by_id]
    metrics = metrics_of(evaluation, kind, category_ids=ids, frequencies=frequencies)
    return Measured(kind, tuple(by_id), evaluation, metrics)


def as_metrics(measured: Sequence[Measured], source: DataSource) -> dict[str, dict[str, Any]]:
    """The summary of each kind, and "per_category", the AP of each category by name and kind."""
    categories = source.categories
    names = unique_names(categories)
    per_category: dict[str, dict[str, float | None]] = {name: {} for name in names}
    for item in measured:
        for label in item.labels:
            value = item.metrics.per_category[categories.ids[label - 1]]
            per_category[names[label - 1]][item.kind] = value
    return {item.kind: item.metrics.summary for item in measured} | {"per_category": per_category}


def unique_names(categories: Categories) -> list[str]:
    """The category names, with the id appended where several share a name."""
    counts = Counter(categories.names)
    return [
        name if counts[name] == 1 else f"{name} ({category})"
        for category, name in zip(categories.ids, categories.names, strict=True)
    ]


def has_keypoints(config: Config, source: DataSource) -> bool:
    """Whether model and data have keypoints; LVIS has no metrics for them."""
    return config.model.keypoint and bool(source.categories.keypoint_labels) and source.federated is None


def _has_masks(source: DataSource) -> bool:
    return any(
        item.segmentation is not None
        for index in range(len(source.ids))
        for item in source.annotations(index)
    )
