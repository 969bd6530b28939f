"""Which images and objects of a source are trained on, and what to say at the start about the others."""

import numpy as np

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.findings import printable
from mrcnn_jax.data.joined import data_sets
from mrcnn_jax.data.repeats import repeat_factors
from mrcnn_jax.data.source import DataSource

_NAMED = 8  # categories


def trained_images(source: DataSource, config: DataConfig, *, keypoints: bool) -> np.ndarray:
    """Whether each image is trained on, bool ``[N]``; ``keypoints`` says whether the model has keypoints.

    Images without objects, or with crowds only, are not, unless ``config.keep_empty``; nor are those with
    fewer than ``config.min_keypoints`` visible keypoints over all of their objects. That is Detectron2's
    ``filter_images_with_few_keypoints`` (from 1) and torchvision's
    ``_coco_remove_images_without_annotations`` (from 10). A model without keypoints is trained on the same
    images, unless no image has any.

    Raises ValueError for records that do not say how many keypoints are visible.
    """
    trained = source.learnable | config.keep_empty
    if config.min_keypoints and (keypoints or _has_keypoints(source)):
        if source.visible_keypoints is None:
            raise ValueError(
                f"{source.name}: these records were made before the visible keypoints of an image were "
                "counted; remake them with mrcnn-jax prepare, or set data.min_keypoints to 0"
            )
        trained = trained & (source.visible_keypoints >= config.min_keypoints)
    return trained


def sets_of_images(source: DataSource, config: DataConfig) -> np.ndarray:
    """The index of each image's data set, int ``[N]``.

    Raises ValueError unless ``config.train_shares``, if there are any, has one for each set.
    """
    sets = data_sets(source)
    if config.train_shares and len(config.train_shares) != len(sets):
        raise ValueError(
            f"data.train_shares is {config.train_shares}; must have one for each of the {len(sets)} "
            "data sets that are trained on"
        )
    return np.repeat(np.arange(len(sets)), [count for _, count in sets])


def repeats_of_images(source: DataSource, config: DataConfig, trained: np.ndarray) -> np.ndarray | None:
    """The ``repeat_factors`` of the n ``trained`` images, float64 ``[n]``; None without a threshold.

    Raises ValueError for records that do not list the categories of an image.
    """
    if not config.repeat_threshold:
        return None
    factors = repeat_factors(
        labels_of_images(source, "data.repeat_threshold"),
        trained,
        num_categories=len(source.categories),
        threshold=config.repeat_threshold,
    )
    return factors[trained]


def labels_of_images(source: DataSource, setting: str) -> np.ndarray:
    """``source.image_labels``, which a ``setting`` needs; raises ValueError, naming it, if they are None."""
    if source.image_labels is None:
        raise ValueError(
            f"{source.name}: the categories of an image, which {setting} needs, are not listed; records of "
            f"earlier versions can be remade with mrcnn-jax prepare, or set {setting} to 0"
        )
    return source.image_labels


def images_of_categories(source: DataSource, trained: np.ndarray, setting: str) -> np.ndarray:
    """How many trained images have an object of each category, int64 ``[C]``.

    Raises as ``labels_of_images``.
    """
    image, label = labels_of_images(source, setting).T
    return np.bincount(label[trained[image]] - 1, minlength=len(source.categories))


def frequencies(source: DataSource, config: DataConfig, trained: np.ndarray) -> np.ndarray:
    """How often each of the n ``trained`` images is seen, relative to the mean, float ``[n]``."""
    often = repeats_of_images(source, config, trained)
    if often is None:
        often = np.ones(int(trained.sum()))
    if config.train_shares:
        shares, sets = np.asarray(config.train_shares), sets_of_images(source, config)[trained]
        of_set = np.bincount(sets, often, minlength=len(shares))
        often = often * (shares / np.maximum(of_set, 1))[sets]
    return often * len(often) / often.sum() if len(often) else often


def describe_selection(source: DataSource, config: DataConfig, *, keypoints: bool) -> list[str]:
    """Lines about images that are left out or have too many objects, about crowds, and empty categories."""
    lines = []
    trained = trained_images(source, config, keypoints=keypoints)
    if len(parts := data_sets(source)) > 1:
        sets = sets_of_images(source, config)[trained]
        often = np.bincount(sets, frequencies(source, config, trained), len(parts)) / max(1, len(sets))
        lines += [
            f"{share:.1%} of the training images are from {printable(name)} ({count} images)"
            for share, (name, count) in zip(often, parts, strict=True)
        ]
    if overfull := int((source.num_objects > config.max_objects).sum()):
        lines.append(
            f"{_count(overfull)} more than {config.max_objects} objects (data.max_objects): the "
            f"smallest are ignored, neither learnt nor background; one has {source.num_objects.max()}"
        )
    repeats = repeats_of_images(source, config, trained)
    if repeats is not None:
        rare = repeats[repeats > 1]
        lines.append(
            f"data.repeat_threshold is {config.repeat_threshold:g}: for rare categories, {len(rare)} of "
            f"{len(repeats)} images are repeated, each {rare.min():.2f} to {rare.max():.2f} times in an "
            f"epoch of {repeats.sum():.0f} images"
            if len(rare)
            else f"data.repeat_threshold is {config.repeat_threshold:g}: no category is that rare"
        )
    few = (source.learnable | config.keep_empty) & ~trained
    if few.any():
        lines.append(
            f"{_count(int(few.sum()))} fewer than {config.min_keypoints} visible keypoints "
            "(data.min_keypoints) and are left out"
        )
    if source.counts is not None:
        objects, crowds = source.counts.T
        if crowds.any():
            lines.append(
                f"{crowds.sum()} of {source.counts.sum()} objects are crowds, which are ignored; "
                "data.crowds_are_objects trains on them as objects"
            )
        for nothing, why in (
            ((objects == 0) & (crowds > 0), "crowds only"),
            (objects + crowds == 0, "none"),
        ):
            if nothing.any():
                names = [source.categories.names[index] for index in np.flatnonzero(nothing)]
                shown = ", ".join(map(printable, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
                lines.append(f"categories without an object to learn from ({why}): {shown}")
    return lines


def _has_keypoints(source: DataSource) -> bool:
    if source.visible_keypoints is None:
        return bool(source.categories.keypoint_names)
    return bool(source.visible_keypoints.any())


def _count(number: int) -> str:
    return "1 image has" if number == 1 else f"{number} images have"
