"""Evaluates a detector on a data source, at the original image sizes, by COCO's or LVIS's metrics."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.data.open_proposals import open_proposals
from mrcnn_jax.data.own import Dataset, as_source
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.distributed import agreement, hosts
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.evaluators import Evaluator, Kind, that_count
from mrcnn_jax.evaluation.ground_truth import annotated_categories, ground_truth
from mrcnn_jax.evaluation.proposal_recall import evaluate_proposals
from mrcnn_jax.inference.detector import Detector, load
from mrcnn_jax.inference.proposer import load_proposer
from mrcnn_jax.inference.views import check_flip_pairs
from mrcnn_jax.json_files import write_json
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.proposals import DataProposals
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import read_model
from mrcnn_jax.runtime.progress import progress_bar
from mrcnn_jax.weights.zoo import workdir_of


def evaluate(
    detector: Detector | str | Path,
    source: DataSource | Dataset | None = None,
    *,
    evaluator: Evaluator = "hotcoco",
    progress: bool = False,
    detections_file: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """COCO's metrics in percent, by kind and name, such as ``metrics["segm"]["AP50"]``.

    ``detector`` may be the directory of a run or a published model's name (docs/zoo.md), and ``source`` a
    dataset of your own (``data.own.Dataset``); without it, the validation data of the detector's config are
    used.

    "bbox" is always present, "segm" if model and data have masks (an object without one counts as missed),
    "keypoints" if both have keypoints (measured over the categories that have them). "per_category" holds the
    AP of each category by name, ``metrics["per_category"]["person"]["bbox"]``; names that several categories
    share get the id appended: "person (1)". A value is None where the data have nothing to measure, for
    example no large object.

    Annotations in LVIS's format are measured by LVIS's rules: "AP" over the categories that each image is
    annotated for, of at most 300 detections, with "APr", "APc" and "APf" of rare, common and frequent
    categories.

    With ``evaluator`` "pycocotools" the same metrics are computed by pycocotools, as a check and many times
    slower. If several processes have joined, each detects objects in its share of the images, and every
    process returns the metrics over all images. Process 0 writes all detections to ``detections_file``, if it
    is given, as a COCO results list.

    Of a run without heads the result is that of ``evaluate_proposals``, and ``evaluator`` and
    ``detections_file`` have no effect. A model without an RPN takes the proposals of ``data.val_proposals``.

    Raises ``ValueError``, naming the rule, for data that ``check_source`` rejects, for pycocotools on LVIS's
    annotations, and if an image cannot be read or its size differs from its annotation.
    """
    if not isinstance(detector, Detector):
        workdir = workdir_of(detector)
        config = read_model(workdir).config
        if not config.model.box:
            proposer = load_proposer(workdir, batch_size=config.test.batch_size)
            pixels = PixelFormat.of(config)
            source = (
                open_validation_source(config)
                if source is None
                else as_source(source, mask_grid=0, pixels=pixels)
            )
            return evaluate_proposals(proposer, source, progress=progress)
        detector = load(workdir, batch_size=config.test.batch_size)
    if source is None:
        source = open_validation_source(detector.config)
    source = as_source(source, mask_grid=0, pixels=detector.pixels)
    check_evaluator(evaluator, source)
    proposals = check_source(detector.config, detector.categories, source)
    check_same_source(source)
    categories, federated = source.categories, source.federated
    kinds: list[Kind] = ["bbox"]
    if detector.config.model.mask and _has_masks(source):
        kinds.append("segm")
    if _has_keypoints(detector.config, source):
        kinds.append("keypoints")

    truth = ground_truth(source)
    with hosts.fail_together():
        keep_all = federated is None or detections_file is not None
        own = _detect(detector, source, proposals, keep_all=keep_all, progress=progress)
    shares = hosts.all_gather(own)
    entries = [
        entry
        for number in range(len(source.ids))
        for entry in shares[number % len(shares)][number // len(shares)]
    ]

    if detections_file is not None and hosts.is_main_process():
        write_json(detections_file, entries)

    metrics: dict[str, dict[str, Any]] = {}
    names = _unique_names(categories)
    per_category: dict[str, dict[str, float | None]] = {name: {} for name in names}
    for kind in kinds:
        labels = categories.keypoint_labels if kind == "keypoints" else range(1, len(categories) + 1)
        measured = average_precision(
            truth,
            entries,
            kind,
            category_ids=[categories.ids[label - 1] for label in labels],
            sigmas=categories.sigmas,
            evaluator=evaluator,
            frequencies=None if federated is None else federated.frequencies,
        )
        metrics[kind] = measured.summary
        for label in labels:
            per_category[names[label - 1]][kind] = measured.per_category[categories.ids[label - 1]]
    return metrics | {"per_category": per_category}


def _detect(
    detector: Detector,
    source: DataSource,
    proposals: DataProposals | None,
    *,
    keep_all: bool,
    progress: bool,
) -> list[list[dict[str, Any]]]:
    """The COCO result entries of each of this process's images, every n-th one if there are n processes.

    Without ``keep_all`` they are those that count by LVIS's rules, a small part: all of LVIS's validation set
    would take gigabytes.
    """
    own = range(jax.process_index(), len(source.ids), jax.process_count())
    hidden = not (progress and hosts.is_main_process())
    given = None if proposals is None else lambda number: proposals[own[number]]
    stream = detector.stream((_reader(source, index) for index in own), proposals=given)
    results = progress_bar(stream, total=len(own), hidden=hidden)
    # Masks are encoded here, while the device computes the next batches.
    found = []
    for index, result in zip(own, results, strict=True):
        entries = result.to_coco(int(source.ids[index]))
        found.append(entries if keep_all else that_count(entries, annotated_categories(source, index)))
    return found


def _reader(source: DataSource, index: int) -> Callable[[], np.ndarray]:
    """A function that decodes an image, for the detector to call in one of its threads."""
    return lambda: source.read(index).pixels


def check_same_source(source: DataSource) -> None:
    """Raises ``ValueError``, naming processes, unless all have the same image ids, sizes and boxes."""
    boxes = [[item.box for item in source.annotations(index)] for index in range(len(source.ids))]
    agreement.check_same_arrays(
        "images to evaluate on",
        source.ids,
        source.sizes,
        np.array([len(of_image) for of_image in boxes]),
        np.array([box for of_image in boxes for box in of_image]),
    )


def check_evaluator(evaluator: Evaluator, source: DataSource) -> None:
    """Raises ``ValueError`` if the evaluator has no metrics for the source's annotations."""
    if evaluator == "pycocotools" and source.federated is not None:
        raise ValueError(
            f"{source.name}: its annotations are LVIS's, which pycocotools has no metrics for; the evaluator "
            "must be hotcoco"
        )


def check_source(config: Config, categories: Categories, source: DataSource) -> DataProposals | None:
    """Checks that a run can be evaluated on the source; returns its proposals, for a model without an RPN.

    Raises ``ValueError``, naming the rule, if it cannot. The source's categories must be the run's
    ``categories`` (see ``check_categories``), its image and category ids must be from 0 to 2^53 (the range
    that hotcoco reads exactly), its keypoints must have sigmas if the model of ``config`` detects keypoints,
    its images must have proposals if that model has no RPN, and all its annotations must be readable. With
    ``test.flip``, a model of keypoints needs the run's pairs of left and right ones.
    """
    check_categories(source.categories, categories, where=source.name)
    check_flip_pairs(config, categories)
    ids = {"image": source.ids.tolist(), "category": source.categories.ids}
    out_of_range = [
        f"{kind} {number}" for kind, numbers in ids.items() for number in numbers if not 0 <= number <= 2**53
    ]
    if out_of_range:
        more = f" and {len(out_of_range) - 5} more" if len(out_of_range) > 5 else ""
        raise ValueError(
            f"{source.name}: for evaluation, ids must be from 0 to 2^53: {', '.join(out_of_range[:5])}{more}"
        )
    count = len(source.categories.keypoint_names)
    if _has_keypoints(config, source) and len(source.categories.sigmas) != count:
        raise ValueError(
            f"{source.name}: keypoint AP needs the OKS sigma of each keypoint: give the category a list "
            f"'sigmas' of {count} numbers, one per keypoint"
        )
    proposals = open_proposals(config, source, "val")
    ground_truth(source)  # kept for the evaluation
    return proposals


def _unique_names(categories: Categories) -> list[str]:
    """The category names, with the id appended where several share a name."""
    counts = Counter(categories.names)
    return [
        name if counts[name] == 1 else f"{name} ({category})"
        for category, name in zip(categories.ids, categories.names, strict=True)
    ]


def _has_keypoints(config: Config, source: DataSource) -> bool:
    return config.model.keypoint and bool(source.categories.keypoint_labels) and source.federated is None


def _has_masks(source: DataSource) -> bool:
    return any(
        item.segmentation is not None
        for index in range(len(source.ids))
        for item in source.annotations(index)
    )
