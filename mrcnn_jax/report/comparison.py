"""The section of a run's page that compares it with other detections in the same images."""

from collections.abc import Sequence

from mrcnn_jax.evaluation.diagnosis import ap_of_categories, interval_of_difference
from mrcnn_jax.evaluation.measured import Measured
from mrcnn_jax.evaluation.table import KINDS
from mrcnn_jax.report.charts import number
from mrcnn_jax.report.page import Section, element, section
from mrcnn_jax.report.tables import Column, Row, table

_RESAMPLES = 300


def comparison(
    measured: Sequence[Measured], before: Sequence[Measured], names: Sequence[str], *, file: str
) -> Section:
    """The section: AP ``before``, of the detections in ``file``, and now; ``names`` are of labels, from 1.

    Both are of the same kinds.
    """
    rows = []
    for old, new in zip(before, measured, strict=True):
        values = old.metrics.summary["AP"], new.metrics.summary["AP"]
        low, high = interval_of_difference(old, new, resamples=_RESAMPLES)
        between = f"{low:+.1f} to {high:+.1f}" if None not in values else "-"
        rows.append(Row([KINDS[new.kind], *map(number, values), _change(*values), between]))
    heads = [Column("", numeric=False), Column("AP before"), Column("AP now"), Column("change")]
    heads.append(Column("95 % interval", help="of the change, over images drawn at random, with repetition"))
    text = (
        f"Before: the detections in {file}, of the same images and measured alike. The interval says how far "
        f"the change depends on which images were measured on: it is of {_RESAMPLES} random draws of as many "
        "images. If it has 0 inside, the change may be chance."
    )
    changes = []
    for old, new in zip(before, measured, strict=True):
        pairs = zip(new.labels, ap_of_categories(old)["AP"], ap_of_categories(new)["AP"], strict=True)
        for label, first, second in pairs:
            if first is not None and second is not None:
                cells = [names[label - 1], KINDS[new.kind], number(first), number(second)]
                changes.append((second - first, Row([*cells, _change(first, second)])))
    changes.sort(key=lambda item: item[0])
    columns = [Column("category", numeric=False), Column("", numeric=False), *heads[1:4]]
    return section(
        "Comparison",
        element("p", text),
        table(heads, rows),
        table(
            columns,
            [row for _, row in changes],
            caption="AP by category, the largest loss first",
            sortable=True,
        ),
    )


def _change(before: float | None, now: float | None) -> str:
    return "-" if before is None or now is None else f"{now - before:+.1f}"
