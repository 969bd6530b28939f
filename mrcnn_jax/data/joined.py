"""Several data sets as one, to train on together."""

from collections.abc import Sequence

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.federated import Federated
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.objects import Objects
from mrcnn_jax.data.source import AnnotatedImage, DataSource
from mrcnn_jax.runs.categories import Categories


class JoinedSource:
    """A ``DataSource`` with the images of several, in order, and the categories of the first.

    Image ids are kept if all differ; otherwise they count from 1. Raises ValueError unless all sources have
    the same categories and keypoints.
    """

    def __init__(self, sources: Sequence[DataSource]) -> None:
        first = sources[0]
        _check_same_categories(sources)
        self.categories = first.categories
        self._sources = [
            source if source.categories == first.categories else AlignedSource(source, first.categories)
            for source in sources
        ]
        self.name = " + ".join(source.name for source in sources)
        self.data_sets = tuple((source.name, len(source.ids)) for source in sources)
        self._starts = np.cumsum([0, *(count for _, count in self.data_sets)])
        ids = np.concatenate([source.ids for source in sources])
        self.ids = ids if len(np.unique(ids)) == len(ids) else np.arange(1, len(ids) + 1)
        self.sizes = np.concatenate([source.sizes for source in sources])
        self.learnable = np.concatenate([source.learnable for source in sources])
        self.num_objects = np.concatenate([source.num_objects for source in sources])
        self.has_masks = any(source.has_masks for source in sources)
        self.findings = tuple(finding for source in sources for finding in source.findings)
        self.counts: np.ndarray | None = None
        counts = [source.counts for source in self._sources if source.counts is not None]
        if len(counts) == len(sources):
            self.counts = np.sum(counts, axis=0)
        self.visible_keypoints: np.ndarray | None = None
        visible = [item.visible_keypoints for item in sources if item.visible_keypoints is not None]
        if len(visible) == len(sources):
            self.visible_keypoints = np.concatenate(visible)
        self.image_labels: np.ndarray | None = None
        pairs = [source.image_labels for source in self._sources if source.image_labels is not None]
        if len(pairs) == len(sources):
            starts = np.repeat(self._starts[:-1], [len(of_set) for of_set in pairs])
            image, label = np.concatenate(pairs).T
            self.image_labels = np.stack([image + starts, label], axis=1).astype(np.int32)
        self.federated: Federated | None = None  # only evaluation reads it, which is on a single set

    def read(self, index: int) -> AnnotatedImage:
        source, inner = self._find(index)
        return source.read(inner)

    def objects(self, index: int) -> Objects:
        source, inner = self._find(index)
        return source.objects(inner)

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        source, inner = self._find(index)
        return source.annotations(inner)

    def _find(self, index: int) -> tuple[DataSource, int]:
        """The source of an image, and the image's index in it."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._sources[number], index - int(self._starts[number])


def data_sets(source: DataSource) -> tuple[tuple[str, int], ...]:
    """The name and the number of images of each of the data sets in ``source``, in order."""
    inner = source.source if isinstance(source, AlignedSource) else source
    return inner.data_sets if isinstance(inner, JoinedSource) else ((source.name, len(source.ids)),)


def _check_same_categories(sources: Sequence[DataSource]) -> None:
    first = sources[0]
    problems = []
    for source in sources[1:]:
        theirs, ours = (_by_id(item.categories) for item in (source, first))
        problems += [
            f"category {number} is {theirs.get(number)!r} in {source.name}, {ours.get(number)!r} in "
            f"{first.name}"
            for number in sorted({*theirs, *ours})
            if theirs.get(number) != ours.get(number)
        ]
        points = source.categories.keypoint_names
        if points != first.categories.keypoint_names:
            problems.append(
                f"keypoints are {', '.join(points) or 'none'} in {source.name}, "
                f"{', '.join(first.categories.keypoint_names) or 'none'} in {first.name}"
            )
    if problems:
        raise ValueError(
            "data sets that are trained on together must have the same categories:\n  "
            + "\n  ".join(problems)
        )


def _by_id(categories: Categories) -> dict[int, str]:
    return dict(zip(categories.ids, categories.names, strict=True))
