"""The labels of a data set as those of a run that may have other labels for the same categories."""

import dataclasses

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset
from mrcnn_jax.data.coco_categories import UNUSED
from mrcnn_jax.data.objects import Objects
from mrcnn_jax.data.source import Picture, Source
from mrcnn_jax.types import Categories


def align_labels(dataset: CocoDataset, categories: Categories) -> CocoDataset:
    """The data set with the run's labels, ids and names; ``categories`` are the run's.

    A category has keypoints if it has some in both, and the data set's sigmas. Raises ValueError as
    ``check_categories`` does.
    """
    to_run, aligned = match_labels(dataset.categories, categories, where=dataset.name)

    def align(item: CocoAnnotation) -> CocoAnnotation:
        label = int(to_run[item.label])
        keypoints = item.keypoints if label in aligned.keypoint_labels else None
        return dataclasses.replace(item, label=label, keypoints=keypoints)

    images = tuple(
        dataclasses.replace(image, annotations=tuple(map(align, image.annotations)))
        for image in dataset.images
    )
    return dataclasses.replace(dataset, categories=aligned, images=images)


class AlignedSource:
    """A source of images with the run's labels, ids and names: ``align_labels`` for sources."""

    def __init__(self, source: Source, categories: Categories) -> None:
        self._source = source
        self._to_run, self.categories = match_labels(source.categories, categories, where=source.name)
        self.name, self.ids, self.sizes = source.name, source.ids, source.sizes
        self.learnable, self.num_objects, self.has_masks = (
            source.learnable, source.num_objects, source.has_masks,
        )  # fmt: skip
        self.findings = source.findings

    def read(self, index: int) -> Picture:
        picture = self._source.read(index)
        return dataclasses.replace(picture, objects=self._align(picture.objects))

    def file(self, index: int) -> bytes:
        return self._source.file(index)

    def objects(self, index: int) -> Objects:
        return self._align(self._source.objects(index))

    def _align(self, objects: Objects) -> Objects:
        labels = self._to_run[objects.labels]
        keypoints = objects.keypoints[:, : len(self.categories.keypoint_names)]
        known = np.isin(labels, self.categories.keypoint_labels)[:, None, None]
        return dataclasses.replace(
            objects, labels=labels, keypoints=np.where(known, keypoints, np.float32(0))
        )


def match_labels(data: Categories, run: Categories, *, where: str) -> tuple[np.ndarray, Categories]:
    """The run's label of each label of the data, int32 by label, and the run's categories for the data.

    A category has keypoints if it has some in both, and the data's sigmas. Raises ValueError, beginning with
    ``where``, as ``check_categories`` does.
    """
    check_categories(data, run, where=where)
    label_of = {category: label for label, category in enumerate(run.ids, start=1)}
    to_run = np.array([0, *(label_of[category] for category in data.ids)], np.int32)
    in_data = {int(to_run[label]) for label in data.keypoint_labels}
    keypoint_labels = tuple(label for label in run.keypoint_labels if label in in_data)
    aligned = Categories(ids=run.ids, names=run.names)
    if keypoint_labels:
        aligned = dataclasses.replace(run, keypoint_labels=keypoint_labels, sigmas=data.sigmas)
    return to_run, aligned


def check_categories(data: Categories, categories: Categories, *, where: str) -> None:
    """Nothing, if the data's categories are the run's ``categories``, by id and name.

    The run may have more that are called "N/A": labels that are in no use. The keypoints must be the same
    unless one of both has none. Raises ValueError, beginning with ``where``, with all differences otherwise.
    """
    run = dict(zip(categories.ids, categories.names, strict=True))
    here = dict(zip(data.ids, data.names, strict=True))
    differences = [
        f"no category {i} ({run[i]!r}), which the run has" for i in run if i not in here and run[i] != UNUSED
    ]
    differences += [f"category {i} ({here[i]!r}), which the run does not have" for i in here if i not in run]
    differences += [
        f"category {i} is {here[i]!r}, in the run {run[i]!r}" for i in run if i in here and run[i] != here[i]
    ]
    keypoints = data.keypoint_names
    if keypoints and categories.keypoint_names and keypoints != categories.keypoint_names:
        differences.append(
            f"keypoints {', '.join(keypoints)}, in the run {', '.join(categories.keypoint_names)}"
        )
    if differences:
        raise ValueError(
            f"{where}: its categories are not those that the run was trained on:\n  "
            + "\n  ".join(differences)
        )
