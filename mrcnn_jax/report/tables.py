"""Tables of a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from mrcnn_jax.report.page import Child, Html, element

_TALL = 16  # rows from which a table scrolls by itself


@dataclass(frozen=True)
class Column:
    """A heading; ``numeric`` columns are aligned at the right and sorted by value."""

    name: str
    numeric: bool = True
    help: str | None = None  # shown when the mouse rests on the heading


@dataclass(frozen=True)
class Row:
    """The cells of a row; its ``kind`` "own" emphasises it."""

    cells: Sequence[Child]
    kind: str | None = None


def table(
    columns: Sequence[Column], rows: Sequence[Row], *, caption: str = "", sortable: bool = False
) -> Html:
    """A table that scrolls sideways in a narrow window; headings sort a ``sortable`` one."""
    head = element(
        "tr",
        (element("th", item.name, class_=_class(item), title=item.help, scope="col") for item in columns),
    )
    body = (
        element(
            "tr",
            (
                element("td", cell, class_="n" if item.numeric else "name")
                for item, cell in zip(columns, row.cells, strict=True)
            ),
            class_=row.kind,
        )
        for row in rows
    )
    content = element(
        "table",
        element("caption", caption) if caption else "",
        element("thead", head),
        element("tbody", body),
        class_="sortable" if sortable else None,
    )
    # A region that scrolls must be reachable by keyboard.
    tall = " tall" if len(rows) > _TALL else ""
    return element("div", content, class_=f"scroll{tall}", tabindex=0 if tall else None)


def facts(values: Sequence[tuple[str, str]]) -> Html:
    """A table of names and values, without headings."""
    rows = (
        element("tr", element("th", name, scope="row"), element("td", value, class_="name"))
        for name, value in values
    )
    return element("div", element("table", element("tbody", rows)), class_="scroll")


def cards(values: Sequence[tuple[str, str, str]]) -> Html:
    """Large numbers side by side: a name, the number, and a line about it for each."""
    return element(
        "div",
        (
            element("div", element("span", name), element("b", value), element("span", note), class_="card")
            for name, value, note in values
        ),
        class_="cards",
    )


def _class(column: Column) -> str | None:
    return "n" if column.numeric else None
