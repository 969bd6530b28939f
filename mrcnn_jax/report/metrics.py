"""The sections of a run's page about its metrics: tables, curves, errors, confusions and calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn_jax.evaluation import diagnosis
from mrcnn_jax.evaluation.evaluators import MAX_DETECTIONS, MAX_LVIS_DETECTIONS
from mrcnn_jax.evaluation.measured import Measured
from mrcnn_jax.evaluation.table import COLUMNS, KINDS, LVIS_COLUMNS, RECALL_COLUMNS, column_of
from mrcnn_jax.report import published
from mrcnn_jax.report.charts import (
    NUM_COLORS,
    Mark,
    Series,
    bar_chart,
    histogram,
    line_chart,
    number,
    small_bar,
)
from mrcnn_jax.report.outcome import Outcome
from mrcnn_jax.report.page import Html, Section, element, section
from mrcnn_jax.report.tables import Column, Row, cards, table
from mrcnn_jax.weights.zoo_models import Model

_PUBLISHED = 6  # models in the table
_MEANINGS = {
    "AP": "mean over IoUs from 0.50 to 0.95 and over categories",
    "AP50": "at an IoU of 0.50",
    "AP75": "at an IoU of 0.75",
    "APs": "objects of less than 32 x 32 pixels",
    "APm": "objects from 32 x 32 to 96 x 96 pixels",
    "APl": "objects of more than 96 x 96 pixels",
    "APr": "categories with 1 to 10 training images",
    "APc": "categories with 11 to 100 training images",
    "APf": "categories with more than 100 training images",
    "AR": "average recall",
}
_PRECISION = (
    "Precision over recall, interpolated as for AP: the mean of a curve is its AP. It falls to 0 where no "
    "score is low enough for that recall."
)
_ERRORS = {
    "Cls": "wrong category",
    "Loc": "inaccurate",
    "Both": "both of these",
    "Dupe": "duplicate",
    "Bkg": "nothing there",
    "Miss": "missed",
}


def overview(
    metrics: Mapping[str, Mapping[str, Any]], like: Sequence[Model], said: Sequence[str], images: int
) -> Section:
    """The section of the summary; ``said`` are sentences about what was measured, on so many ``images``."""
    kinds = [kind for kind in KINDS if kind in metrics]
    columns = LVIS_COLUMNS if any("APr" in metrics[kind] for kind in kinds) else COLUMNS
    rows = []
    for kind in kinds:
        cells = (number(column_of(metrics[kind], name)) for name in columns)
        rows.append(Row([KINDS[kind], *cells], "own"))
        for model in like[:_PUBLISHED]:
            reported = dict(zip(published.KINDS, model.ap, strict=False)).get(kind)
            if reported is not None:
                blank = ["" for _ in columns[1:]]
                rows.append(Row([f"{model.name}, published", number(reported), *blank]))
    heads = [Column("", numeric=False)]
    heads += [Column(_shown(name, metrics, kinds), help=_MEANINGS.get(name)) for name in columns]
    parts: list[Html] = [element("p", " ".join(said))]
    big = []
    for kind in kinds:
        ap50 = number(metrics[kind]["AP50"])
        big.append((f"{KINDS[kind]} AP", number(metrics[kind]["AP"]), f"AP50 {ap50}"))
    parts += [cards(big), table(heads, rows, caption="In percent, as mrcnn-jax evaluate prints it.")]
    if like:
        more = f" {len(like) - _PUBLISHED} more are in docs/zoo.md." if len(like) > _PUBLISHED else ""
        text = (
            "Published: what was reported for networks of the same layers, trained by their authors, on "
            f"{published.data_of(like[0])}. It is comparable only with a run that was measured on the same "
            f"images; this one was on {images:,}.{more}"
        )
        parts.append(element("p", text, class_="soft"))
    return section("Overview", parts)


def recall(values: Mapping[str, float | None], said: Sequence[str]) -> Section:
    """The section about proposals of a run without heads."""
    limits = list(dict.fromkeys(name.partition("@")[2] for name in values))
    rows = [
        Row([f"{limit} proposals", *(number(values[f"{name}@{limit}"]) for name in RECALL_COLUMNS)])
        for limit in limits
    ]
    heads = [Column("", numeric=False), *(Column(name) for name in RECALL_COLUMNS)]
    caption = "Average recall in percent: of all objects, then of small, medium and large ones."
    big = [(f"AR@{limit}", number(values[f"AR@{limit}"]), "proposals of an image") for limit in limits]
    return section("Overview", element("p", " ".join(said)), cards(big), table(heads, rows, caption=caption))


def errors(measured: Sequence[Measured]) -> Section:
    """The section about what keeps AP from 100."""
    charts = []
    for item in measured:
        if item.kind == "keypoints":  # TIDE is defined for boxes and masks
            continue
        found = diagnosis.tide_errors(item)
        rows = [
            (_ERRORS[name], found.lost[name], f"{found.lost[name]:.1f} ({found.counts[name]:,})")
            for name in diagnosis.ERRORS
        ]
        charts.append(bar_chart(f"{KINDS[item.kind].capitalize()}: AP50 lost, and errors counted", rows))
    text = (
        "What AP50 would gain if one kind of error were mended and the others stayed (TIDE, arXiv "
        "2008.08115), in percent. Errors are counted at every score. Inaccurate: an IoU from 0.1 to 0.5 with "
        "an object of the category. Nothing there: an IoU of at most 0.1 with any object."
    )
    return section("Errors", element("p", text), element("div", charts, class_="charts"))


def curves(measured: Sequence[Measured], outcome: Outcome, names: Sequence[str]) -> Section:
    """The section with precision over recall, and over the score; ``names`` are of labels, from 1."""
    charts = []
    for item in measured:
        found = diagnosis.curves(item)
        kind = KINDS[item.kind].capitalize()
        threshold = "OKS" if item.kind == "keypoints" else "IoU"
        lines = [
            Series(f"{threshold} {wanted:.2f}", _points(found.recalls, found.precision[k]))
            for wanted in (0.5, 0.75, 0.9)
            for k in np.flatnonzero(np.isclose(found.thresholds, wanted)).tolist()
        ]
        charts.append(_precision_over_recall(f"{kind}, mean of categories", lines))
        half = found.precision[int(np.isclose(found.thresholds, 0.5).argmax())]
        objects = np.bincount(outcome.object_labels, minlength=len(names) + 1)
        by_objects = sorted(range(len(item.labels)), key=lambda k: -objects[item.labels[k]])[:NUM_COLORS]
        lines = [Series(names[item.labels[k] - 1], _points(found.recalls, half[:, [k]])) for k in by_objects]
        if len(item.labels) > 1:
            which = f": the {NUM_COLORS} with most objects" if len(item.labels) > NUM_COLORS else ""
            charts.append(_precision_over_recall(f"{kind}, {threshold} 0.50, by category{which}", lines))
    curve = outcome.thresholds
    lines = [
        Series(name, list(zip(curve.scores.tolist()[::-1], values.tolist()[::-1], strict=True)))
        for name, values in (("precision", curve.precision), ("recall", curve.recall), ("F1", curve.f1))
    ]
    lines = [Series(line.name, thinned(line.points)) for line in lines]
    kind = KINDS[outcome.measured.kind]
    choice = line_chart(
        f"If detections from a score on are kept ({kind}, IoU 0.50)",
        lines,
        x_name="score",
        y_name="share",
        x_range=(0, 1),
        y_range=(0, 1),
        marks=[Mark(outcome.score, f"{outcome.score:.2f}")],
    )
    text = (
        f"Over all categories together, F1 is highest at a score of {number(curve.best, 2)}. The dashed line "
        f"is at {outcome.score:.2f}, the score of the confusions, of the counts by category and of the "
        "pictures below."
    )
    return section(
        "Curves",
        element("p", _PRECISION),
        element("div", charts, class_="charts pairs"),
        element("h3", "Choosing a score"),
        element("p", text),
        element("div", choice, class_="charts"),
    )


def categories(measured: Sequence[Measured], outcome: Outcome, names: Sequence[str]) -> Section:
    """The section with each category's metrics, the one with the lowest AP first."""
    source = outcome.source
    found, missed, false = outcome.per_label()
    with_objects = outcome.matches.objects > 0
    objects = np.bincount(outcome.object_labels[with_objects], minlength=len(names) + 1)
    by_kind = {item.kind: diagnosis.ap_of_categories(item) for item in measured}
    row_of = {item.kind: {label: k for k, label in enumerate(item.labels)} for item in measured}
    shown = [(item.kind, "AP") for item in measured]
    primary = outcome.measured.kind
    shown += [(primary, name) for name in ("AP50", "AP75", "APs", "APm", "APl")]
    heads = [Column("category", numeric=False), Column("objects")]
    if source.federated is not None:
        heads.append(Column("frequency", numeric=False, help="r, c or f: rare, common or frequent"))
    heads += [Column(f"{KINDS[kind]} {name}", help=_MEANINGS[name]) for kind, name in shown]
    at = f"at an IoU of 0.50 and scores from {outcome.score:.2f}"
    heads.insert(3 if source.federated is None else 4, Column("", numeric=False))
    heads += [
        Column("precision", help=f"share of its detections that are correct, {at}"),
        Column("recall", help=f"share of its objects that were found, {at}"),
        Column("false", help=f"its detections that are not correct, {at}"),
        Column("missed", help=f"its objects that were not found, {at}"),
        Column("best score", help="from which its F1 is highest: a threshold for this category alone"),
    ]
    rows = []
    for label, name in enumerate(names, start=1):
        values = [
            by_kind[kind][column][row_of[kind][label]] if label in row_of[kind] else None
            for kind, column in shown
        ]
        cells: list[Any] = [name, f"{objects[label]:,}"]
        if source.federated is not None:
            cells.append(source.federated.frequencies[label - 1])
        numbers: list[Any] = [number(value) for value in values]
        numbers.insert(1, "" if values[0] is None else small_bar(values[0] / 100))
        cells += numbers
        kept, present = found[label] + false[label], found[label] + missed[label]
        cells += [
            number(100 * found[label] / kept if kept else None),
            number(100 * found[label] / present if present else None),
            f"{false[label]:,}",
            f"{missed[label]:,}",
            number(diagnosis.thresholds(outcome.matches, *outcome.of_label(label)).best, 2),
        ]
        rows.append((values[0], name, Row(cells)))
    rows.sort(key=lambda item: (item[0] is None, item[0], item[1]))
    text = (
        f"The lowest first; press a heading to sort by it. The last columns are of "
        f"{_plural(primary)} {at}. Categories without objects have no AP."
    )
    return section("Categories", element("p", text), table(heads, [row for _, _, row in rows], sortable=True))


def calibration(measured: Sequence[Measured]) -> Section:
    """The section about scores as probabilities."""
    charts = []
    for item in measured:
        found = diagnosis.calibration(item)
        some = found.counts > 0
        points = list(zip(found.scores[some].tolist(), found.correct[some].tolist(), strict=True))
        charts.append(
            line_chart(
                f"{KINDS[item.kind].capitalize()}: expected calibration error {100 * found.error:.1f} %",
                [Series("", points)],
                x_name="mean score",
                y_name="share that is correct",
                x_range=(0, 1),
                y_range=(0, 1),
                diagonal=True,
            )
        )
    counts = diagnosis.calibration(measured[0]).counts.tolist()
    edges = [bin / len(counts) for bin in range(len(counts) + 1)]
    charts.append(histogram("Detections of each score", edges, counts, x_name="score", y_name="detections"))
    text = (
        "How often detections of a score are correct, in ten bins, at an IoU or OKS of 0.50. On the dashed "
        "line a score is the probability of being correct; below it, scores are too high."
    )
    return section("Calibration", element("p", text), element("div", charts, class_="charts"))


def comparison(measured: Sequence[Measured], source_images: int, *, lvis: bool) -> str:
    """A sentence about the detections that count."""
    limits = sorted({MAX_LVIS_DETECTIONS if lvis else MAX_DETECTIONS[item.kind] for item in measured})
    per = "image" if lvis else "image and category"
    shown = " or ".join(map(str, limits))
    return f"At most {shown} detections of an {per} count, over all {source_images:,} images."


def thinned(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most some ``most`` of the points, evenly chosen by their order, with the first and the last."""
    if len(points) <= most:
        return list(points)
    chosen = np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))
    return [points[i] for i in chosen.tolist()]


def _precision_over_recall(title: str, lines: Sequence[Series]) -> Html:
    return line_chart(title, lines, x_name="recall", y_name="precision", x_range=(0, 1), y_range=(0, 1))


def _points(recalls: np.ndarray, precision: np.ndarray) -> list[tuple[float, float]]:
    """The mean over the categories that have objects; no points if none has."""
    has_objects = (precision > -1).all(axis=0)
    if not has_objects.any():
        return []
    mean = precision[:, has_objects].mean(axis=1)
    return list(zip(recalls.tolist(), mean.tolist(), strict=True))


def _shown(name: str, metrics: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> str:
    """A heading, with the number of detections that a recall counts if it is the same of all kinds."""
    if name != "AR":
        return name
    full = {key for kind in kinds for key in metrics[kind] if key.startswith("AR")}
    return full.pop() if len(full) == 1 else name


def _plural(kind: str) -> str:
    return {"bbox": "boxes", "segm": "masks"}[kind]
