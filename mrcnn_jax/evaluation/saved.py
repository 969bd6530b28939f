"""Reads the results list that ``mrcnn-jax evaluate --save_detections`` wrote, for another look at it."""

from pathlib import Path
from typing import Any

from mrcnn_jax.data import fields
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.evaluators import Kind, that_count
from mrcnn_jax.evaluation.ground_truth import annotated_categories
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle
from mrcnn_jax.tool_formats.results_file import ResultsFile

_LISTED = 5  # image ids in a message


def read_saved(path: Path, source: DataSource, kinds: list[Kind]) -> list[dict[str, Any]]:
    """The entries of a COCO results list, in the order of the source's images; of LVIS those that count.

    Raises ValueError, naming the file, the entry and the rule, for an image or a category that the source
    does not have, and for an entry that is malformed or lacks what is to be measured: a mask for "segm", and
    keypoints for "keypoints" if its category has them.
    """
    results, categories = ResultsFile(path), source.categories
    known = set(source.ids.tolist())
    if unknown := [image for image in results.image_ids if image not in known]:
        raise ValueError(
            f"{path}: image ids {unknown[:_LISTED]} are not in {source.name}; the detections must be of the "
            "same images"
        )
    if unknown := sorted(results.categories.keys() - set(categories.ids)):
        raise ValueError(f"{path}: category ids {unknown[:_LISTED]} are not in {source.name}")
    with_keypoints = {categories.ids[label - 1] for label in categories.keypoint_labels}
    points = len(categories.keypoint_names) if "keypoints" in kinds else 0
    entries: list[dict[str, Any]] = []
    for index, (image_id, size) in enumerate(zip(source.ids.tolist(), source.sizes.tolist(), strict=True)):
        of_image = []
        for where, entry in results.entries(image_id):
            expected = points if entry["category_id"] in with_keypoints else 0
            _check(entry, where, size, masks="segm" in kinds, points=expected)
            of_image.append(entry)
        if source.federated is not None:
            of_image = that_count(of_image, annotated_categories(source, index))
        entries += of_image
    return entries


def _check(entry: dict[str, Any], where: str, size: Size, *, masks: bool, points: int) -> None:
    wanted = {"score": 1, "bbox": 4} | ({"keypoints": 3 * points} if points else {})
    for name, count in wanted.items():
        value = entry.get(name)
        values = [value] if name == "score" else value
        if not isinstance(values, list) or len(values) != count or not fields.is_numbers(values):
            rule = "a number" if count == 1 else f"{count} numbers"
            raise fields.error(where, name, rule, value)
    if not 0 <= entry["score"] <= 1:
        raise fields.error(where, "score", "between 0 and 1", entry["score"])
    if masks:
        if not isinstance(mask := entry.get("segmentation"), dict):
            raise fields.error(where, "segmentation", "an RLE, which this run's results have", mask)
        try:
            rle = Rle.from_json(mask)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if (rle.height, rle.width) != tuple(size):
            raise ValueError(
                f"{where}: its mask is {rle.height} x {rle.width} pixels, its image {size[0]} x {size[1]}"
            )
