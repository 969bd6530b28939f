"""What a table's rows have shown so far: their differences, seed by seed, beside the paper's.

Runs of one seed begin with the same backbone, and see the same batches and proposals. So the differences are
paired: what all rows of a seed have in common cancels out.
"""

import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from mrcnn_jax.paper.tables import Metric, Row, Table

Scores = Mapping[Metric, float]  # of one run, in percent

# Student's t: 97.5 % quantiles for 2, 3, ... seeds. For more, the last one serves; it is a little strict.
_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Difference(NamedTuple):
    """How much better one row is than another by one metric, in points."""

    metric: Metric
    row: Row
    reference: Row
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
    def verdict(self) -> str:
        """Whether the paper's direction shows: "yes", "no", or "noise" if the interval includes 0.

        Where the paper has no difference, that is "yes" if the interval includes 0.
        """
        includes_0 = abs(self.mean) <= self.margin
        if self.paper == 0:
            return "yes" if includes_0 and len(self.ours) > 1 else "noise" if includes_0 else "no"
        if includes_0:
            return "noise"
        return "yes" if (self.mean > 0) == (self.paper > 0) else "no"


def differences(table: Table, scores: Mapping[str, Mapping[int, Scores]]) -> list[Difference]:
    """The differences from the first row that has a metric, where both rows have been run.

    ``scores`` are those of the finished runs, by the row's config and the seed.
    """
    found = []
    for metric in table.metrics:
        reference, *others = (row for row in table.rows if metric in row.paper)
        for row in others:
            theirs, ours = scores.get(reference.config, {}), scores.get(row.config, {})
            seeds = sorted(theirs.keys() & ours.keys())
            if seeds:
                points = tuple(ours[seed][metric] - theirs[seed][metric] for seed in seeds)
                paper = round(row.paper[metric] - reference.paper[metric], 1)  # as it is printed
                found.append(Difference(metric, row, reference, paper, points))
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
    found = {
        f"{item.row.label}, {item.metric}, over {item.reference.label}": item
        for item in differences(table, scores)
    }
    if found:
        width = max(map(len, found))
        lines += ["", f"{'':<{width}}{'paper':>8}{'here':>8}{'±':>6}   shows?"]
    for label, item in found.items():
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
                "paper": item.paper,
                "seeds": list(item.ours),
                "mean": item.mean,
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
