"""The AP of a detector on a data set, at the size of the original images."""

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

    "bbox" is always there, "segm" if model and data set have masks (an object without one counts as not
    found), "keypoints" if both have keypoints (measured over the categories that have them). "per_category"
    holds the AP of each category by name: ``metrics["per_category"]["person"]["bbox"]``, with the id where
    categories share a name: "person (1)". A value is None where the data set has nothing to measure, for
    example no large object.

    ``evaluator`` "pycocotools" has that compute the metrics, as a check: the same ones, many times slower.
    Where several processes have joined, each finds objects in its share of the images; the metrics are those
    of all images, in every process.

    Raises ``ValueError``, naming the rule, for a data set that ``check_dataset`` rejects, and if an image
    cannot be read, or is not of the size that the data set says.
    """
    check_dataset(detector.config, detector.categories, dataset)
    check_alike(dataset)
    categories = dataset.categories
    kinds: list[Kind] = ["bbox"]
    if detector.config.model.mask and _has_masks(dataset):
        kinds.append("segm")
    if _has_keypoints(detector.config, dataset):
        kinds.append("keypoints")

    truth = ground_truth(dataset)
    with hosts.together():
        own = _detect(detector, dataset, progress=progress)
    shares = hosts.gather(own)
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
    """The entries of a COCO results list for each of this process's images: every n-th, of n processes."""
    own = dataset.images[jax.process_index() :: jax.process_count()]
    entries = []
    hidden = not (progress and hosts.is_first())
    results = tqdm(
        detector.stream(image.path for image in own), total=len(own), unit="image", disable=hidden or None
    )
    for image, result in zip(own, results, strict=True):
        if result.image_size != (image.height, image.width):
            raise ValueError(
                f"{image.path}: the image is {result.image_size[0]} x {result.image_size[1]} pixels "
                f"(height x width); {dataset.name} says {image.height} x {image.width} (image {image.id})"
            )
        # Masks are encoded here, while the device computes the next batches.
        entries.append(result.to_coco(image.id))
    return entries


def check_alike(dataset: CocoDataset) -> None:
    """Raises ``ValueError``, naming processes, unless all that have joined have the same images and boxes."""
    counts = [(image.id, image.height, image.width, len(image.annotations)) for image in dataset.images]
    boxes = [annotation.box for image in dataset.images for annotation in image.annotations]
    agreement.check_alike("images to evaluate on", np.array(counts), np.array(boxes))


def check_dataset(config: Config, categories: Categories, dataset: CocoDataset) -> None:
    """Raises ``ValueError``, naming the rule, unless a run can be evaluated on the data set.

    The data set's categories must be the run's ``categories`` (see ``check_categories``), ids of images and
    categories must be from 0 to 2^53 (as hotcoco reads them exactly), and its keypoints, if the model of
    ``config`` finds keypoints, must have sigmas.
    """
    check_categories(dataset.categories, categories, where=dataset.name)
    ids = {"image": [image.id for image in dataset.images], "category": dataset.categories.ids}
    beyond = [
        f"{kind} {number}" for kind, numbers in ids.items() for number in numbers if not 0 <= number <= 2**53
    ]
    if beyond:
        more = f" and {len(beyond) - 5} more" if len(beyond) > 5 else ""
        raise ValueError(
            f"{dataset.name}: to be evaluated, ids must be from 0 to 2^53: {', '.join(beyond[:5])}{more}"
        )
    count = len(dataset.categories.keypoint_names)
    if _has_keypoints(config, dataset) and len(dataset.categories.sigmas) != count:
        raise ValueError(
            f"{dataset.name}: keypoint AP needs the spread of each keypoint: give the category a list "
            f"'sigmas' of {count} numbers, one for each of its keypoints"
        )


def _unique_names(categories: Categories) -> list[str]:
    """The names, with the id where another category has the same."""
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
