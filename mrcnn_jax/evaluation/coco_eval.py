"""Evaluates a detector on a dataset, at the original image sizes."""

from collections import Counter
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco import CocoDataset
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.distributed import agreement, hosts
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.evaluators import Evaluator, Kind
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.types import Categories


def evaluate(
    detector: Detector,
    dataset: CocoDataset,
    *,
    evaluator: Evaluator = "hotcoco",
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """COCO's metrics in percent, by kind and name, such as ``metrics["segm"]["AP50"]``.

    "bbox" is always present, "segm" if model and dataset have masks (an object without one counts as missed),
    "keypoints" if both have keypoints (measured over the categories that have them). "per_category" holds the
    AP of each category by name, ``metrics["per_category"]["person"]["bbox"]``; names that several categories
    share get the id appended: "person (1)". A value is None where the dataset has nothing to measure, for
    example no large object.

    With ``evaluator`` "pycocotools" the same metrics are computed by pycocotools, as a check and many times
    slower. If several processes have joined, each detects objects in its share of the images, and every
    process returns the metrics over all images.

    Raises ``ValueError``, naming the rule, for a dataset that ``check_dataset`` rejects, and if an image
    cannot be read or its size differs from its annotation.
    """
    check_dataset(detector.config, detector.categories, dataset)
    check_same_dataset(dataset)
    categories = dataset.categories
    kinds: list[Kind] = ["bbox"]
    if detector.config.model.mask and _has_masks(dataset):
        kinds.append("segm")
    if _has_keypoints(detector.config, dataset):
        kinds.append("keypoints")

    truth = ground_truth(dataset)
    with hosts.fail_together():
        own = _detect(detector, dataset, progress=progress)
    shares = hosts.all_gather(own)
    entries = [
        entry
        for number in range(len(dataset.images))
        for entry in shares[number % len(shares)][number // len(shares)]
    ]

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
        )
        metrics[kind] = measured.summary
        for label in labels:
            per_category[names[label - 1]][kind] = measured.per_category[categories.ids[label - 1]]
    return metrics | {"per_category": per_category}


def _detect(detector: Detector, dataset: CocoDataset, *, progress: bool) -> list[list[dict[str, Any]]]:
    """The COCO result entries of each of this process's images, every n-th one if there are n processes."""
    own = dataset.images[jax.process_index() :: jax.process_count()]
    entries = []
    hidden = not (progress and hosts.is_main_process())
    results = tqdm(
        detector.stream(image.path for image in own), total=len(own), unit="image", disable=hidden or None
    )
    for image, result in zip(own, results, strict=True):
        if result.image_size != (image.height, image.width):
            raise ValueError(
                f"{image.path}: the image is {result.image_size[0]} x {result.image_size[1]} pixels "
                f"(height x width); {dataset.name} says {image.height} x {image.width} (image {image.id})"
            )
        # Encode masks here, while the device computes the next batches.
        entries.append(result.to_coco(image.id))
    return entries


def check_same_dataset(dataset: CocoDataset) -> None:
    """Raises ``ValueError``, naming processes, unless all have the same image ids, sizes and boxes."""
    counts = [(image.id, image.height, image.width, len(image.annotations)) for image in dataset.images]
    boxes = [annotation.box for image in dataset.images for annotation in image.annotations]
    agreement.check_same_arrays("images to evaluate on", np.array(counts), np.array(boxes))


def check_dataset(config: Config, categories: Categories, dataset: CocoDataset) -> None:
    """Raises ``ValueError``, naming the rule, unless a run can be evaluated on the dataset.

    The dataset's categories must be the run's ``categories`` (see ``check_categories``), its image and
    category ids must be from 0 to 2^53 (the range that hotcoco reads exactly), and its keypoints must have
    sigmas if the model of ``config`` detects keypoints.
    """
    check_categories(dataset.categories, categories, where=dataset.name)
    ids = {"image": [image.id for image in dataset.images], "category": dataset.categories.ids}
    out_of_range = [
        f"{kind} {number}" for kind, numbers in ids.items() for number in numbers if not 0 <= number <= 2**53
    ]
    if out_of_range:
        more = f" and {len(out_of_range) - 5} more" if len(out_of_range) > 5 else ""
        raise ValueError(
            f"{dataset.name}: for evaluation, ids must be from 0 to 2^53: {', '.join(out_of_range[:5])}{more}"
        )
    count = len(dataset.categories.keypoint_names)
    if _has_keypoints(config, dataset) and len(dataset.categories.sigmas) != count:
        raise ValueError(
            f"{dataset.name}: keypoint AP needs the OKS sigma of each keypoint: give the category a list "
            f"'sigmas' of {count} numbers, one per keypoint"
        )


def _unique_names(categories: Categories) -> list[str]:
    """The category names, with the id appended where several share a name."""
    counts = Counter(categories.names)
    return [
        name if counts[name] == 1 else f"{name} ({category})"
        for category, name in zip(categories.ids, categories.names, strict=True)
    ]


def _has_keypoints(config: Config, dataset: CocoDataset) -> bool:
    return config.model.keypoint and bool(dataset.categories.keypoint_labels)


def _has_masks(dataset: CocoDataset) -> bool:
    return any(
        annotation.segmentation is not None for image in dataset.images for annotation in image.annotations
    )
