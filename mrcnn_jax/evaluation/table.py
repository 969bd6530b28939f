"""Formats COCO's and LVIS's metrics as text tables."""

from collections.abc import Mapping
from typing import Any

KINDS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
RECALL_COLUMNS = ("AR", "ARs", "ARm", "ARl")
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
LVIS_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR")
_LISTED = 100  # categories; of more, the file has the AP of each


def format_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of the metrics from ``evaluate``: the summary, then the AP per category, best box AP first.

    Of more than ``_LISTED`` categories only the best are listed. Of ``evaluate_proposals``, a table of the
    average recall. Values are in percent; "-" where the dataset has nothing to measure.
    """
    if "proposals" in metrics:
        return _recall_table(metrics["proposals"])
    kinds = [kind for kind in KINDS if kind in metrics]
    # The last column is AR100 for boxes and masks, AR20 for keypoints, AR300 for LVIS's annotations.
    columns = LVIS_COLUMNS if any("APr" in metrics[kind] for kind in kinds) else COLUMNS
    rows = [[KINDS[kind], *(_cell(column_of(metrics[kind], name)) for name in columns)] for kind in kinds]
    tables = [_table(["", *columns], rows)]
    per_category = metrics.get("per_category", {})
    if len(per_category) > 1:
        by_box = sorted(per_category.items(), key=lambda item: -_number(item[1].get("bbox")))
        rows = [[name, *(_cell(values.get(kind)) for kind in kinds)] for name, values in by_box[:_LISTED]]
        if len(by_box) > _LISTED:
            rows.append([f"... and {len(by_box) - _LISTED} more", *("" for _ in kinds)])
        tables.append(_table(["AP by category", *(KINDS[kind] for kind in kinds)], rows))
    return "\n\n".join(tables)


def _recall_table(recall: Mapping[str, float | None]) -> str:
    """The average recall of proposals, a row for each number of them."""
    rows = []
    for limit in dict.fromkeys(name.partition("@")[2] for name in recall):
        cells = [_cell(recall[f"{name}@{limit}"]) for name in RECALL_COLUMNS]
        rows.append([f"{limit} proposals", *cells])
    return _table(["", *RECALL_COLUMNS], rows)


def column_of(summary: Mapping[str, float | None], name: str) -> float | None:
    """The value of a column; "AR" is the summary's only recall, whatever its number of detections."""
    if name == "AR":
        name = next((key for key in summary if key.startswith("AR")), name)
    return summary.get(name)


def _number(value: float | None) -> float:
    return -1.0 if value is None else value


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    first = max(len(row[0]) for row in [header, *rows])
    widths = [max(6, len(name)) for name in header[1:]]
    lines = []
    for name, *cells in [header, *rows]:
        lines.append(
            name.ljust(first) + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        )
    return "\n".join(lines)
