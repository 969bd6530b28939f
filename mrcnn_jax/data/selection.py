"""Which images and objects of a source are trained on, and what to say at the start about the others."""

import numpy as np

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.findings import printable
from mrcnn_jax.data.joined import data_sets
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


def frequencies(sets: np.ndarray, config: DataConfig) -> np.ndarray:
    """How often each trained image is seen, relative to the mean, float ``[n]``.

    ``sets [n]`` are the indices of their data sets.
    """
    if not config.train_shares:
        return np.ones(len(sets))
    shares = np.asarray(config.train_shares)
    images = np.bincount(sets, minlength=len(shares))
    return (shares / shares.sum() * len(sets) / np.maximum(images, 1))[sets]


def describe_selection(source: DataSource, config: DataConfig, *, keypoints: bool) -> list[str]:
    """Lines about images that are left out or have too many objects, about crowds, and empty categories."""
    lines = []
    if len(parts := data_sets(source)) > 1:
        sets = sets_of_images(source, config)[trained_images(source, config, keypoints=keypoints)]
        often = np.bincount(sets, frequencies(sets, config), len(parts)) / max(1, len(sets))
        lines += [
            f"{share:.1%} of the training images are from {printable(name)} ({count} images)"
            for share, (name, count) in zip(often, parts, strict=True)
        ]
    if overfull := int((source.num_objects > config.max_objects).sum()):
        lines.append(
            f"{_count(overfull)} more than {config.max_objects} objects (data.max_objects): the "
            f"smallest are ignored, neither learnt nor background; one has {source.num_objects.max()}"
        )
    few = (source.learnable | config.keep_empty) & ~trained_images(source, config, keypoints=keypoints)
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
