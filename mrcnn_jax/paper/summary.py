"""What a table's rows have shown so far: their differences, seed by seed, beside the paper's.

All runs begin with the same backbone and have the same proposals; a seed decides the heads' first weights,
the order of the images and the samples of regions. The differences are paired by seed: what all rows of a
seed have in common cancels out.
"""

import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from mrcnn_jax.paper.tables import Metric, Row, Table

Scores = Mapping[Metric, float]  # of one run, in percent

# Student's t: 97.5 % quantiles for 2, 3, ... seeds. For more, the last one serves; it is a little strict.
_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
_ON_PAR = 1.0  # points


class Difference(NamedTuple):
    """How much better one row is than another by one metric, in points."""

    metric: Metric
    row: Row
    reference: Row
    on_par: bool  # what the paper says of them; otherwise its numbers say which is better
    paper: float
    ours: tuple[float, ...]  # one for each seed that both have run

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.ours)

    @property
    def margin(self) -> float:
        """Half the 95 % confidence interval of that mean (Student's t); infinite for a single seed."""
        seeds = len(self.ours)
        if seeds == 1:
            return math.inf
        quantile = _QUANTILES[min(seeds - 2, len(_QUANTILES) - 1)]
        return quantile * statistics.stdev(self.ours) / math.sqrt(seeds)

    @property
    def label(self) -> str:
        """The two rows."""
        return f"{self.row.label} {'beside' if self.on_par else 'over'} {self.reference.label}"

    @property
    def verdict(self) -> str:
        """Whether what the paper says shows: "yes", "no", or "noise" if the 95 % interval leaves it open.

        Without an interval it is "one seed". "yes" is an interval on the paper's side of 0 or, of rows on
        par, within 1 point of it; "no" is one on the other side, or more than 1 point away from it.
        """
        if len(self.ours) == 1:
            return "one seed"
        size = abs(self.mean)
        if self.on_par:
            if size + self.margin <= _ON_PAR:
                return "yes"
            return "no" if size - self.margin > _ON_PAR else "noise"
        if size <= self.margin:
            return "noise"
        return "yes" if (self.mean > 0) == (self.paper > 0) else "no"


def differences(table: Table, scores: Mapping[str, Mapping[int, Scores]]) -> list[Difference]:
    """The differences of the rows that the paper compares, where both have been run.

    ``scores`` are those of the finished runs, by the row's config and the seed.
    """
    rows = {row.label: row for row in table.rows}
    found = []
    for comparison in table.comparisons:
        row, reference = rows[comparison.row], rows[comparison.reference]
        ours, theirs = scores.get(row.config, {}), scores.get(reference.config, {})
        seeds = sorted(ours.keys() & theirs.keys())
        for metric in row.paper:
            if metric not in reference.paper or not seeds:
                continue
            points = tuple(ours[seed][metric] - theirs[seed][metric] for seed in seeds)
            paper = round(row.paper[metric] - reference.paper[metric], 1)  # as it is printed
            found.append(Difference(metric, row, reference, comparison.on_par, paper, points))
    return found


def to_text(table: Table, scores: Mapping[str, Mapping[int, Scores]]) -> str:
    """The table for a terminal: every row's means and spread beside the paper's, then the differences."""
    width = max(len(row.label) for row in table.rows)
    lines = [f"Table {table.number}: {table.title}", f"The paper: {table.claim}.", ""]
    header = "".join(f"{metric!s:>18}{'paper':>8}" for metric in table.metrics)
    lines.append(f"{'':<{width}}{header}   seeds")
    for row in table.rows:
        runs = scores.get(row.config, {})
        cells = "".join(
            f"{_spread([run[metric] for run in runs.values()]):>18}{row.paper[metric]:>8.1f}"
            if metric in row.paper
            else f"{'':>26}"
            for metric in table.metrics
        )
        lines.append(f"{row.label:<{width}}{cells}{len(runs):>8}")
    found = differences(table, scores)
    labels = [f"{item.label}, {item.metric}" for item in found]
    if found:
        width = max(map(len, labels))
        lines += ["", f"{'':<{width}}{'paper':>8}{'here':>8}{'±':>6}   shows?"]
    for label, item in zip(labels, found, strict=True):
        margin = f"{item.margin:.1f}" if math.isfinite(item.margin) else "-"
        points = ", ".join(f"{point:+.1f}" for point in item.ours)
        lines.append(
            f"{label:<{width}}{item.paper:>+8.1f}{item.mean:>+8.1f}{margin:>6}   {item.verdict} ({points})"
        )
    return "\n".join(lines)


def to_dict(table: Table, scores: Mapping[str, Mapping[int, Scores]]) -> dict[str, object]:
    """The same as plain values, for a JSON file."""
    return {
        "table": table.number,
        "rows": [
            {
                "label": row.label,
                "config": f"paper/{row.config}",
                "paper": {str(metric): value for metric, value in row.paper.items()},
                "seeds": {
                    str(seed): {str(metric): run[metric] for metric in row.paper}
                    for seed, run in sorted(scores.get(row.config, {}).items())
                },
            }
            for row in table.rows
        ],
        "differences": [
            {
                "metric": str(item.metric),
                "row": item.row.label,
                "from": item.reference.label,
                "on par": item.on_par,
                "paper": item.paper,
                "seeds": list(item.ours),
                "mean": item.mean,
                "margin": item.margin if math.isfinite(item.margin) else None,
                "shows": item.verdict,
            }
            for item in differences(table, scores)
        ],
    }


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ±{statistics.stdev(values):.1f}"
