"""The section of a run's page about categories that are taken for others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mrcnn_jax.evaluation.diagnosis import confusion_matrix
from mrcnn_jax.report.outcome import Outcome
from mrcnn_jax.report.page import Html, Section, element, section
from mrcnn_jax.report.tables import Column, Row, table

_MATRIX = 20  # categories up to which the whole matrix is shown
_LISTED = 15  # confusions
_SHADES = 10  # classes h0 to h9 of the style


def confusions(outcome: Outcome, names: Sequence[str]) -> Section:
    """The section; ``names`` are of labels, from 1. Of many categories, those that are most confused."""
    matrix = confusion_matrix(outcome.measured, outcome.score)
    shown = [names[label - 1] for label in outcome.measured.labels]
    what = "masks" if outcome.measured.kind == "segm" else "boxes"
    text = (
        f"Of the {what} of scores from {outcome.score:.2f}, each is compared with the object that it "
        "overlaps most, whatever its category, at an IoU of 0.50 or more. A row says what the objects of a "
        "category were found as."
    )
    parts = [element("p", text)]
    chosen = _most_confused(matrix)
    if len(chosen) < len(shown):
        rest = f"The {len(chosen)} categories with most confusions; others count in no cell."
        parts.append(element("p", rest, class_="soft"))
    parts.append(element("div", _list(matrix, shown), _heat_map(matrix, shown, chosen), class_="beside"))
    return section("Confusions", parts)


def _most_confused(matrix: Int[np.ndarray, "k+1 k+1"]) -> list[int]:
    """The categories to show, in their order."""
    between = matrix[:-1, :-1] - np.diag(np.diag(matrix[:-1, :-1]))
    involved = between.sum(axis=0) + between.sum(axis=1)
    if len(involved) <= _MATRIX:
        return list(range(len(involved)))
    return sorted(np.argsort(-involved, kind="stable")[:_MATRIX].tolist())


def _list(matrix: Int[np.ndarray, "k+1 k+1"], names: Sequence[str]) -> Html:
    """A table of the most frequent confusions."""
    between = matrix[:-1, :-1] - np.diag(np.diag(matrix[:-1, :-1]))
    order = np.argsort(-between, axis=None, kind="stable")[:_LISTED]
    objects = matrix[:-1].sum(axis=1)
    rows = []
    for place in order.tolist():
        row, column = divmod(place, len(names))
        if between[row, column]:
            share = 100 * between[row, column] / objects[row]
            cells = [names[row], names[column], f"{between[row, column]:,}", f"{share:.1f}"]
            rows.append(Row(cells))
    if not rows:
        return element("p", "No category was taken for another.")
    heads = [Column("annotated as", numeric=False), Column("found as", numeric=False)]
    heads += [Column("objects"), Column("% of them", help="of all objects of the annotated category")]
    return table(heads, rows, caption="The most frequent confusions")


def _heat_map(matrix: Int[np.ndarray, "k+1 k+1"], names: Sequence[str], chosen: Sequence[int]) -> Html:
    """The counts as a table, shaded by their share of the row."""
    keep = [*chosen, len(names)]
    head = element(
        "tr",
        element("th", "annotated \u2193 found \u2192", scope="col"),
        (element("th", element("span", names[k]), scope="col", class_="turned") for k in chosen),
        element("th", element("span", "not found"), scope="col", class_="turned"),
    )
    rows = []
    for row in keep:
        total = max(int(matrix[row].sum()), 1)
        cells = []
        for column in keep:
            count = int(matrix[row, column])
            shade = min(_SHADES - 1, _SHADES * count // total)
            is_corner = row == column == len(names)
            text = "" if is_corner else f"{count:,}" if count else "\u00b7"
            cells.append(element("td", text, class_=f"n h{shade}" if count else "n zero"))
        name = "nothing annotated" if row == len(names) else names[row]
        rows.append(element("tr", element("th", name, scope="row"), cells))
    content = element("table", element("thead", head), element("tbody", rows), class_="heat")
    return element("div", content, class_="scroll", tabindex=0)
