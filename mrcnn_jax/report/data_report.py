"""Reports on a training set: ``write_data_report`` makes one HTML file of its counts, sizes and pictures."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.summary import KINDS, LARGE, MEDIUM, Summary, describe_training
from mrcnn_jax.json_files import replacing
from mrcnn_jax.report.charts import Mark, counted, histogram, number, small_bar
from mrcnn_jax.report.page import Section, element, page, section
from mrcnn_jax.report.pictures import MOST_BYTES, Figure, Picture, figures
from mrcnn_jax.report.tables import Column, Row, cards, table

_LISTED = 200  # findings
_SIZES = 12  # most frequent sizes of images
_SIDES = 2.0 ** np.arange(1, 11.25, 0.5)  # pixels: 2, 2.8, 4, ... 2048
_RATIOS = 2.0 ** np.arange(-3.5, 4)  # the middle bin is around 1
_COUNTS = (0, 1, 2, 3, 5, 9, 17, 33, 65)  # the first of each bin


def write_data_report(
    output: Path,
    summary: Summary,
    *,
    findings: Sequence[Finding],
    selection: Sequence[str],
    pictures: Sequence[tuple[Picture, str]],
) -> None:
    """Writes the report on a training set to the HTML file ``output``, replacing an existing one.

    ``selection`` are lines about what is trained on, and ``pictures`` images of batches with their captions.
    """
    parts = [_overview(summary), _categories(summary), _shapes(summary), _training(summary, selection)]
    if findings:
        parts.append(_findings(findings))
    parts.append(_pictures(pictures))
    lead = element("p", f"The training set of {summary.name}")
    text = page(f"Data of {Path(summary.name).name}", lead, parts)
    with replacing(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _overview(summary: Summary) -> Section:
    objects = int(summary.objects[:, :3].sum())
    with_objects = summary.num_images - summary.empty
    crowds = int(summary.objects[:, 3].sum())
    per_image = objects / max(with_objects, 1)
    values = [
        ("images", f"{summary.num_images:,}", f"{summary.trained:,} trained on"),
        ("objects", f"{objects:,}", f"and {counted(crowds, 'crowd')}"),
        ("categories", f"{len(summary.categories):,}", f"{_unused(summary):,} without objects"),
        ("objects per image", number(per_image), "of images with objects"),
    ]
    return section("Overview", cards(values))


def _unused(summary: Summary) -> int:
    return int((summary.objects[:, :3].sum(axis=1) == 0).sum())


def _categories(summary: Summary) -> Section:
    totals = summary.objects.sum(axis=1)
    most = max(int(totals.max(initial=0)), 1)
    heads = [Column("category", numeric=False), Column("objects"), Column("", numeric=False)]
    heads += [Column("images"), *(Column(kind) for kind in KINDS)]
    if summary.shares is not None:
        heads += [
            Column("share, %", help="of the training images that have the category"),
            Column("seen, %", help="the same as the images are repeated"),
        ]
    rows = []
    for label in np.argsort(-totals, kind="stable").tolist():
        cells = [summary.categories[label], f"{totals[label]:,}", small_bar(totals[label] / most)]
        cells.append(f"{summary.images_of_category[label]:,}")
        cells += [f"{count:,}" for count in summary.objects[label]]
        if summary.shares is not None:
            cells += [f"{100 * share:.2f}" for share in summary.shares[label]]
        rows.append(Row(cells))
    text = (
        f"The most frequent first; press a heading to sort by it. Sizes are by area in the image as it is: "
        f"small below {MEDIUM:,} square pixels, large from {LARGE:,}."
    )
    return section("Categories", element("p", text), table(heads, rows, sortable=True))


def _shapes(summary: Summary) -> Section:
    width, height = summary.sides.T.astype(np.float64)
    sides = np.sqrt(width * height)
    marks = [Mark(_place(side), f"{side:g}") for side in (MEDIUM**0.5, LARGE**0.5)]
    ratios = np.clip(width / height, _RATIOS[0], _RATIOS[-1] * 0.999)
    ratio_names = ["1:8", "1:4", "1:2", "1:1", "2:1", "4:1", "8:1"]
    bins = [*_COUNTS, np.inf]
    count_names = [
        f"{low}" if high == low + 1 else f"{low}-{high - 1:g}" if np.isfinite(high) else f"{low}+"
        for low, high in pairwise(bins)
    ]
    charts = [
        histogram(
            "Size of objects: square root of the box's area",
            _SIDES.tolist(),
            _histogram(np.clip(sides, _SIDES[0], _SIDES[-1] * 0.999), _SIDES),
            x_name="pixels of the image as it is",
            y_name="objects",
            every=2,
            marks=marks,
        ),
        histogram(
            "Width to height of the boxes",
            _RATIOS.tolist(),
            _histogram(ratios, _RATIOS),
            x_name="width : height",
            y_name="objects",
            names=ratio_names,
        ),
        histogram(
            "Objects of an image",
            bins,
            _histogram(summary.num_objects, np.array(bins)),
            x_name="objects",
            y_name="images",
            names=count_names,
        ),
    ]
    common = Counter(map(tuple, summary.sizes.tolist())).most_common()
    rows = [
        Row([f"{width:,} x {height:,}", f"{count:,}", number(100 * count / summary.num_images)])
        for (height, width), count in common[:_SIZES]
    ]
    heads = [Column("width x height", numeric=False), Column("images"), Column("%")]
    more = f", the {_SIZES} most frequent of {len(common):,}" if len(common) > _SIZES else ""
    return section(
        "Shapes",
        element("div", charts, class_="charts"),
        table(heads, rows, caption=f"Sizes of images in pixels{more}"),
    )


def _training(summary: Summary, selection: Sequence[str]) -> Section:
    lines = [*describe_training(summary), *selection]
    return section("Training", element("ul", (element("li", line) for line in lines)))


def _findings(findings: Sequence[Finding]) -> Section:
    errors_first = sorted(findings, key=lambda finding: finding.warning)
    rows = [
        Row(
            [
                "warning" if finding.warning else "left out",
                finding.file,
                "" if finding.image_id is None else str(finding.image_id),
                "" if finding.annotation_id is None else str(finding.annotation_id),
                finding.rule,
            ]
        )
        for finding in errors_first[:_LISTED]
    ]
    heads = [
        Column("", numeric=False),
        Column("file", numeric=False),
        Column("image"),
        Column("annotation"),
        Column("rule", numeric=False),
    ]
    wrong = sum(not finding.warning for finding in findings)
    text = f"{counted(wrong, 'error')}, left out, and {counted(len(findings) - wrong, 'warning')}."
    if len(findings) > _LISTED:
        text += f" The first {_LISTED} are listed."
    return section("Findings", element("p", text), table(heads, rows, sortable=True))


def _pictures(pictures: Sequence[tuple[Picture, str]]) -> Section:
    text = (
        f"{counted(len(pictures), 'image')} as the model is fed them, after all augmentation, with boxes, "
        "masks and keypoints. Crowds are striped, and padding is a checkerboard."
    )
    items = [Figure([(picture, caption)], caption) for picture, caption in pictures]
    return section("Pictures", element("p", text), figures(items, most_bytes=MOST_BYTES))


def _place(side: float) -> float:
    """Where a side is on the chart of sizes, whose every second bin doubles."""
    return 2 * float(np.log2(side / _SIDES[0]))


def _histogram(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return np.bincount(np.digitize(values, edges[1:-1]), minlength=len(edges) - 1).tolist()
