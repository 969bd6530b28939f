"""The section of a run's page about its training: losses, rates and scores over the steps."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrcnn_jax.report.charts import Mark, Series, line_chart
from mrcnn_jax.report.page import Section, element, section
from mrcnn_jax.runs.scalars import Curve

_POINTS = 300  # of a curve; of more, means are shown
_PARTS = 8  # losses in a chart
_OTHERS = ("loss", "lr", "gradient_norm", "images_per_second", "waiting_for_data")


def training(curves: Mapping[str, Curve], step: int | None) -> Section | None:
    """The section; None for a run without curves. ``step`` is that of the checkpoint that was measured."""
    if not curves:
        return None
    marks = [] if step is None else [Mark(step, f"step {step:,}")]
    losses = sorted(
        (
            tag.partition("/")[2]
            for tag in curves
            if tag.startswith("train/") and tag.partition("/")[2] not in _OTHERS
        ),
        key=lambda name: -curves[f"train/{name}"][0][1],
    )
    scores = [tag for tag in curves if tag.startswith("validation/") and tag.endswith(("_AP", "_AR@1000"))]
    charts = [
        ("Loss", {"training": "train/loss", "validation": "validation/loss"}, "loss"),
        ("Losses in training", {name: f"train/{name}" for name in losses[:_PARTS]}, "loss"),
        ("Validation", {tag.partition("/")[2].replace("_", " "): tag for tag in scores}, "percent"),
        ("Learning rate", {"": "train/lr"}, "rate"),
        ("Norm of the gradient", {"": "train/gradient_norm"}, "norm"),
        ("Speed", {"": "train/images_per_second"}, "images per second"),
    ]
    drawn = []
    for title, tags, unit in charts:
        lines = [Series(name, means(curves[tag])) for name, tag in tags.items() if tag in curves]
        if lines:
            drawn.append(line_chart(title, lines, x_name="step", y_name=unit, marks=marks))
    last = max(points[-1][0] for points in curves.values())
    text = f"As the run's TensorBoard files have them, up to step {last:,}."
    if any(len(points) > _POINTS for points in curves.values()):
        text += f" Of curves of more than {_POINTS} points, means of neighbours are shown."
    return section("Training", element("p", text), element("div", drawn, class_="charts"))


def means(curve: Curve, most: int = _POINTS) -> Sequence[tuple[float, float]]:
    """The curve in ``most`` points at most: means over equal numbers of neighbours."""
    if len(curve) <= most:
        return curve
    parts = np.array_split(np.array(curve, np.float64), most)
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]
