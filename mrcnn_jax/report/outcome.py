"""What became of every detection and object, image by image and category by category.

Shapes: N images, D detections, G objects, C categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.diagnosis import Fate, Matching, Thresholds, matching, thresholds
from mrcnn_jax.evaluation.measured import Measured

_SCORE = 0.5  # if nothing is correct at any score


@dataclass(frozen=True, eq=False)
class Outcome:
    """The detections of at least ``score``, and the objects, with their fates at an IoU of 0.5."""

    source: DataSource
    entries: Sequence[dict[str, Any]]
    measured: Measured
    matches: Matching
    thresholds: Thresholds
    score: float
    entry_images: Int[np.ndarray, " d"]  # indices into the source
    entry_labels: Int[np.ndarray, " d"]
    object_images: Int[np.ndarray, " g"]
    object_labels: Int[np.ndarray, " g"]

    @property
    def kept(self) -> Bool[np.ndarray, " d"]:
        """The detections of at least the score that count."""
        return (self.matches.scores >= self.score) & (self.matches.detections != Fate.IGNORED)

    @cached_property
    def false(self) -> Bool[np.ndarray, " d"]:
        """The detections kept that match no object."""
        return self.kept & (self.matches.detections == Fate.UNMATCHED)

    @cached_property
    def found(self) -> Bool[np.ndarray, " g"]:
        """The objects that a kept detection matches."""
        return self.matches.found(self.score)

    @cached_property
    def missed(self) -> Bool[np.ndarray, " g"]:
        """The objects that no kept detection matches."""
        return (self.matches.objects != Fate.IGNORED) & ~self.found

    def of_label(self, label: int) -> tuple[Bool[np.ndarray, " d"], Bool[np.ndarray, " g"]]:
        """Which detections and objects have a label."""
        return self.entry_labels == label, self.object_labels == label

    def per_image(self) -> tuple[Int[np.ndarray, " n"], ...]:
        """How many objects of each image were found and missed, and how many detections are false."""
        count = len(self.source.ids)
        return (
            np.bincount(self.object_images[self.found], minlength=count),
            np.bincount(self.object_images[self.missed], minlength=count),
            np.bincount(self.entry_images[self.false], minlength=count),
        )

    def per_label(self) -> tuple[Int[np.ndarray, " c+1"], ...]:
        """The same of each label, from 0, which none has."""
        count = len(self.source.categories) + 1
        return (
            np.bincount(self.object_labels[self.found], minlength=count),
            np.bincount(self.object_labels[self.missed], minlength=count),
            np.bincount(self.entry_labels[self.false], minlength=count),
        )


def outcome(
    source: DataSource, entries: Sequence[dict[str, Any]], measured: Measured, score: float | None
) -> Outcome:
    """The outcome of a results list that is in the order of the source's images.

    ``measured`` is of boxes or masks. Without a ``score`` it is that of the largest F1.
    """
    index_of = {image: index for index, image in enumerate(source.ids.tolist())}
    label_of = {category: label for label, category in enumerate(source.categories.ids, start=1)}
    objects = [source.annotations(index) for index in range(len(source.ids))]
    scores: Float[np.ndarray, " d"] = np.array([entry["score"] for entry in entries], np.float64)
    counts = [len(of_image) for of_image in objects]
    matches = matching(measured, scores, sum(counts))
    curve = thresholds(matches)
    if score is None:
        score = _SCORE if curve.best is None else curve.best
    return Outcome(
        source=source,
        entries=entries,
        measured=measured,
        matches=matches,
        thresholds=curve,
        score=score,
        entry_images=np.array([index_of[entry["image_id"]] for entry in entries], np.int64),
        entry_labels=np.array([label_of[entry["category_id"]] for entry in entries], np.int64),
        object_images=np.repeat(np.arange(len(counts)), counts),
        object_labels=np.array([item.label for of_image in objects for item in of_image], np.int64),
    )
