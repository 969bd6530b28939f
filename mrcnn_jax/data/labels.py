"""The labels of a data set as those of a run that may have other labels for the same categories."""

import dataclasses

from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset
from mrcnn_jax.data.coco_categories import UNUSED
from mrcnn_jax.types import Categories


def align_labels(dataset: CocoDataset, categories: Categories) -> CocoDataset:
    """The data set with the run's labels, ids and names; ``categories`` are the run's.

    A category has keypoints if it has some in both, and the data set's sigmas. Raises ValueError as
    ``check_categories`` does.
    """
    check_categories(dataset, categories)
    label_of = {category: label for label, category in enumerate(categories.ids, start=1)}
    to_run = {label: label_of[category] for label, category in enumerate(dataset.categories.ids, start=1)}
    in_data = {to_run[label] for label in dataset.categories.keypoint_labels}
    keypoint_labels = tuple(label for label in categories.keypoint_labels if label in in_data)

    def align(item: CocoAnnotation) -> CocoAnnotation:
        label = to_run[item.label]
        keypoints = item.keypoints if label in keypoint_labels else None
        return dataclasses.replace(item, label=label, keypoints=keypoints)

    aligned = Categories(ids=categories.ids, names=categories.names)
    if keypoint_labels:
        aligned = dataclasses.replace(
            categories, keypoint_labels=keypoint_labels, sigmas=dataset.categories.sigmas
        )
    images = tuple(
        dataclasses.replace(image, annotations=tuple(map(align, image.annotations)))
        for image in dataset.images
    )
    return dataclasses.replace(dataset, categories=aligned, images=images)


def check_categories(dataset: CocoDataset, categories: Categories) -> None:
    """Nothing, if the data set's categories are the run's ``categories``, by id and name.

    The run may have more that are called "N/A": labels that are in no use. The keypoints must be the same
    unless one of both has none. Raises ValueError with all differences otherwise.
    """
    run = dict(zip(categories.ids, categories.names, strict=True))
    data = dict(zip(dataset.categories.ids, dataset.categories.names, strict=True))
    differences = [
        f"no category {i} ({run[i]!r}), which the run has" for i in run if i not in data and run[i] != UNUSED
    ]
    differences += [f"category {i} ({data[i]!r}), which the run does not have" for i in data if i not in run]
    differences += [
        f"category {i} is {data[i]!r}, in the run {run[i]!r}" for i in run if i in data and run[i] != data[i]
    ]
    keypoints = dataset.categories.keypoint_names
    if keypoints and categories.keypoint_names and keypoints != categories.keypoint_names:
        differences.append(
            f"keypoints {', '.join(keypoints)}, in the run {', '.join(categories.keypoint_names)}"
        )
    if differences:
        raise ValueError(
            f"{dataset.name}: its categories are not those that the run was trained on:\n  "
            + "\n  ".join(differences)
        )
