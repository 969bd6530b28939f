"""What a training set holds, counted without reading pixels.

Shapes: N images, C categories.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.augment import expected_area
from mrcnn_jax.data.findings import printable
from mrcnn_jax.data.pipeline import training_canvas
from mrcnn_jax.data.source import Source

# COCO's limits of object areas, in square pixels of the original image: medium from, large from.
_MEDIUM, _LARGE = 32**2, 96**2
KINDS = ("small", "medium", "large", "crowds")


@dataclass(frozen=True, eq=False)
class Summary:
    """Counts over all images of a source, and what its batches will be like."""

    name: str
    num_images: int
    categories: tuple[str, ...]  # C names
    objects: np.ndarray  # [C 4] int64: of KINDS
    images_of_category: np.ndarray  # [C] int64
    empty: int  # images without objects
    only_crowds: int  # images with nothing but crowds
    trained: int  # images that batches are made of
    overfull: int  # images with more than max_objects
    max_objects: int
    canvases: dict[images.Size, float]  # the share of batches that are of each
    padding: float  # expected share of a canvas that is no image, over all trained images


def summarise(source: Source, config: DataConfig, *, indices: Iterable[int] | None = None) -> Summary:
    """The counts of a source under these settings.

    ``indices`` are 0 to N - 1, in a form that shows progress if that is wanted.
    """
    count = len(source.ids)
    objects = np.zeros((len(source.categories), len(KINDS)), np.int64)
    images_of_category = np.zeros(len(source.categories), np.int64)
    for index in range(count) if indices is None else indices:
        found = source.objects(index)
        kind = np.where(found.crowd, 3, np.digitize(found.areas, (_MEDIUM, _LARGE)))
        np.add.at(objects, (found.labels - 1, kind), 1)
        images_of_category[np.unique(found.labels) - 1] += 1

    trained = np.flatnonzero(source.learnable | config.keep_empty)
    canvases, padding = expected_canvases(source.sizes[trained], config)
    return Summary(
        name=source.name,
        num_images=count,
        categories=source.categories.names,
        objects=objects,
        images_of_category=images_of_category,
        empty=int((source.num_objects == 0).sum()),
        only_crowds=int((~source.learnable & (source.num_objects > 0)).sum()),
        trained=len(trained),
        overfull=int((source.num_objects > config.max_objects).sum()),
        max_objects=config.max_objects,
        canvases=canvases,
        padding=padding,
    )


def expected_canvases(sizes: np.ndarray, config: DataConfig) -> tuple[dict[images.Size, float], float]:
    """The share of batches that is of each canvas, and the share of padding among all their pixels.

    Both are expected for images of ``sizes`` ``[N 2]`` (height, width), each equally often, at every size
    that ``config`` has them trained at. The most frequent canvas comes first.
    """
    of_canvas: Counter[images.Size] = Counter()
    covered = total = 0.0
    shapes, counts = np.unique(sizes, axis=0, return_counts=True)
    for (height, width), count in zip(shapes.tolist(), counts.tolist(), strict=True):
        canvas = training_canvas((height, width), config)
        of_canvas[canvas] += count
        covered += count * expected_area((height, width), canvas, config)
        total += count * canvas[0] * canvas[1]
    shares = {canvas: count / len(sizes) for canvas, count in of_canvas.most_common()}
    return shares, 1 - covered / total if total else 0.0


def format_summary(summary: Summary) -> str:
    """The summary as text for a terminal: a table of categories, the most frequent first, and lines."""
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
    left_out = summary.num_images - summary.trained
    lines = [
        f"{printable(summary.name)}: {summary.num_images} images, {by_category.sum()} objects",
        "",
        _table(header, rows),
        "",
        f"sizes by area in the original image: small < {_MEDIUM} <= medium < {_LARGE} <= large",
        f"images without objects: {summary.empty}; with crowds only: {summary.only_crowds}; "
        f"left out of training: {left_out}",
        f"images with more than {summary.max_objects} objects: {summary.overfull}",
        *(
            f"canvas {height}x{width}: {share:.1%} of the batches"
            for (height, width), share in summary.canvases.items()
        ),
        f"padding: {summary.padding:.1%} of the batches' pixels, expected over all sizes",
    ]
    return "\n".join(lines)


def _table(header: list[str], rows: list[list]) -> str:
    texts = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for name, *cells in texts:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)
