"""Maps the labels of a dataset to those of a run, which may number the same categories differently."""

import dataclasses

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.objects import Objects
from mrcnn_jax.data.source import AnnotatedImage, DataSource
from mrcnn_jax.runs.categories import UNUSED, Categories


class AlignedSource:
    """A ``DataSource`` with the run's labels, category ids and names; ``categories`` are the run's.

    A category keeps keypoints only if both define them; the sigmas are the data's. Raises ValueError as
    ``check_categories`` does.
    """

    def __init__(self, source: DataSource, categories: Categories) -> None:
        self.source = source
        self._to_run, self.categories = match_labels(source.categories, categories, where=source.name)
        self.name, self.ids, self.sizes = source.name, source.ids, source.sizes
        self.learnable, self.num_objects, self.has_masks = (
            source.learnable, source.num_objects, source.has_masks,
        )  # fmt: skip
        self.findings, self.visible_keypoints = source.findings, source.visible_keypoints
        self.counts: np.ndarray | None = None
        if source.counts is not None:
            self.counts = np.zeros((len(categories), 2), np.int64)
            self.counts[self._to_run[1:] - 1] = source.counts
        self.image_labels, self.federated = source.image_labels, source.federated
        if source.image_labels is not None:
            image, label = source.image_labels.T
            self.image_labels = np.stack([image, self._to_run[label]], axis=1)
        if source.federated is not None:
            self.federated = source.federated.with_labels(self._to_run, len(categories))

    def read(self, index: int) -> AnnotatedImage:
        picture = self.source.read(index)
        return dataclasses.replace(picture, objects=self._align(picture.objects))

    def objects(self, index: int) -> Objects:
        return self._align(self.source.objects(index))

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        return tuple(map(self._align_annotation, self.source.annotations(index)))

    def _align_annotation(self, item: CocoAnnotation) -> CocoAnnotation:
        label = int(self._to_run[item.label])
        keypoints = item.keypoints if label in self.categories.keypoint_labels else None
        return dataclasses.replace(item, label=label, keypoints=keypoints)

    def _align(self, objects: Objects) -> Objects:
        labels = self._to_run[objects.labels]
        keypoints = objects.keypoints[:, : len(self.categories.keypoint_names)]
        known = np.isin(labels, self.categories.keypoint_labels)[:, None, None]
        return dataclasses.replace(
            objects, labels=labels, keypoints=np.where(known, keypoints, np.float32(0))
        )


def match_labels(data: Categories, run: Categories, *, where: str) -> tuple[np.ndarray, Categories]:
    """The run's label for each label of the data (int32, indexed by label), and the run's categories.

    A category keeps keypoints only if both define them; the sigmas are the data's. Raises ValueError,
    prefixed with ``where``, as ``check_categories`` does.
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
    """Raises ValueError unless the data's categories are those of the run, by id and name.

    The run may have additional categories, if their name is ``UNUSED``. The keypoints must be the
    same unless one side has none. The message is prefixed with ``where`` and lists all differences.
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
