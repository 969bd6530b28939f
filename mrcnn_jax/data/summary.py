"""Statistics of a training set, computed without reading pixels.

Shapes: N images, C categories, G objects that are not crowds.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.augment import expected_area
from mrcnn_jax.data.findings import printable
from mrcnn_jax.data.pipeline import training_canvas
from mrcnn_jax.data.selection import frequencies, labels_of_images, trained_images
from mrcnn_jax.data.source import DataSource

# COCO's size classes, in square pixels of the original image: the smallest medium and large areas.
MEDIUM, LARGE = 32**2, 96**2
KINDS = ("small", "medium", "large", "crowds")


@dataclass(frozen=True, eq=False)
class Summary:
    """Counts over all images of a data source, and the expected shapes of its batches."""

    name: str
    num_images: int
    categories: tuple[str, ...]  # C names
    objects: np.ndarray  # [C 4] int64: one column for each of KINDS
    images_of_category: np.ndarray  # [C] int64
    sides: np.ndarray  # [G 2] float32: width and height of each object's box, in pixels of its image
    num_objects: np.ndarray  # [N] int32: of each image, crowds included
    sizes: np.ndarray  # [N 2] int32: height and width
    # [C 2] float, with data.repeat_threshold: the share of the training images with the category, as they are
    # and as they are seen; None: all are seen equally often.
    shares: np.ndarray | None
    empty: int  # images without objects
    only_crowds: int  # images whose objects are all crowds
    trained: int  # images used for training
    overfull: int  # images with more than max_objects
    max_objects: int
    canvases: dict[images.Size, float]  # canvas -> fraction of the batches that use it
    padding: float  # expected fraction of padding among the pixels of all batches


def summarise(
    source: DataSource, config: DataConfig, *, keypoints: bool, indices: Iterable[int] | None = None
) -> Summary:
    """The statistics of a data source under these settings, for a model with or without ``keypoints``.

    ``indices`` iterates over 0 to N - 1; pass a progress bar here to show progress.
    """
    count = len(source.ids)
    objects = np.zeros((len(source.categories), len(KINDS)), np.int64)
    images_of_category = np.zeros(len(source.categories), np.int64)
    sides = [np.zeros((0, 2), np.float32)]
    for index in range(count) if indices is None else indices:
        found = source.objects(index)
        kind = np.where(found.crowd, 3, np.digitize(found.areas, (MEDIUM, LARGE)))
        np.add.at(objects, (found.labels - 1, kind), 1)
        images_of_category[np.unique(found.labels) - 1] += 1
        boxes = found.boxes[~found.crowd]
        sides.append(boxes[:, 2:] - boxes[:, :2])

    trained = trained_images(source, config, keypoints=keypoints)
    often = frequencies(source, config, trained)
    canvases, padding = expected_canvases(source.sizes[trained], config, often)
    return Summary(
        name=source.name,
        num_images=count,
        categories=source.categories.names,
        objects=objects,
        images_of_category=images_of_category,
        sides=np.concatenate(sides),
        num_objects=source.num_objects,
        sizes=source.sizes,
        empty=int((source.num_objects == 0).sum()),
        only_crowds=int((~source.learnable & (source.num_objects > 0)).sum()),
        shares=_shares(source, trained, often) if config.repeat_threshold else None,
        trained=int(trained.sum()),
        overfull=int((source.num_objects > config.max_objects).sum()),
        max_objects=config.max_objects,
        canvases=canvases,
        padding=padding,
    )


def _shares(source: DataSource, trained: np.ndarray, often: np.ndarray) -> np.ndarray:
    image, label = labels_of_images(source, "data.repeat_threshold").T
    counted = np.zeros((len(trained), 2))
    counted[trained] = np.stack([np.ones_like(often), often], axis=1) / max(1, len(often))
    found = [np.bincount(label - 1, of_image[image], len(source.categories)) for of_image in counted.T]
    return np.stack(found, axis=1)


def expected_canvases(
    sizes: np.ndarray, config: DataConfig, often: np.ndarray | None = None
) -> tuple[dict[images.Size, float], float]:
    """The fraction of batches on each canvas, and the fraction of padding among all their pixels.

    Both are expected values for images of ``sizes`` ``[N 2]`` (height, width) over the training sizes that
    ``config`` defines. ``often [N]`` is how often each image is seen, by default equally often. The most
    frequent canvas comes first.
    """
    images_on_canvas: dict[images.Size, float] = defaultdict(float)
    covered = total = 0.0
    shapes, shape_of_image = np.unique(sizes, axis=0, return_inverse=True)
    counts = np.bincount(shape_of_image, often, len(shapes))
    for (height, width), count in zip(shapes.tolist(), counts.tolist(), strict=True):
        for turned in (False, True) if config.quarter_turns else (False,):
            canvas = training_canvas((height, width), config, turned=turned)
            images_on_canvas[canvas] += count
            covered += count * expected_area((height, width), canvas, config, turned=turned)
            total += count * canvas[0] * canvas[1]
    most_common = sorted(images_on_canvas.items(), key=lambda item: -item[1])
    fractions = {canvas: count / sum(images_on_canvas.values()) for canvas, count in most_common}
    return fractions, 1 - covered / total if total else 0.0


def format_summary(summary: Summary) -> str:
    """The summary as text: a table of categories, the most frequent first, then one line per statistic."""
    by_category = summary.objects.sum(axis=1)
    order = sorted(
        range(len(by_category)), key=lambda label: (-by_category[label], summary.categories[label])
    )
    header = ["category", "images", "objects", *KINDS]
    rows = [
        [summary.categories[c], summary.images_of_category[c], by_category[c], *summary.objects[c]]
        for c in order
    ]
    with_objects = summary.num_images - summary.empty
    rows.append(["all", with_objects, by_category.sum(), *summary.objects.sum(axis=0)])
    if summary.shares is not None:
        header += ["share", "seen"]
        for c, row in zip(order, rows[:-1], strict=True):
            row += [f"{share:.2%}" for share in summary.shares[c]]
        rows[-1] += ["", ""]
    lines = [
        f"{printable(summary.name)}: {summary.num_images} images, {by_category.sum()} objects",
        "",
        _table(header, rows),
        "",
        f"sizes by area in the original image: small < {MEDIUM} <= medium < {LARGE} <= large",
        *(
            []
            if summary.shares is None
            else [
                "share, seen: of the training images, how many have the category, in the data and as repeated"
            ]
        ),
        *describe_training(summary),
    ]
    return "\n".join(lines)


def describe_training(summary: Summary) -> list[str]:
    """Lines about the images that are not trained on, and about the batches of the others."""
    unused = summary.num_images - summary.trained
    return [
        f"images without objects: {summary.empty}; with crowds only: {summary.only_crowds}; "
        f"not used in training: {unused}",
        f"images with more than {summary.max_objects} objects: {summary.overfull}",
        *(
            f"canvas {height}x{width}: {fraction:.1%} of the batches"
            for (height, width), fraction in summary.canvases.items()
        ),
        f"padding: {summary.padding:.1%} of the batches' pixels, expected over all sizes",
    ]


def _table(header: list[str], rows: list[list]) -> str:
    texts = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for name, *cells in texts:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)
