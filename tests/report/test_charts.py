import re

import pytest

from mrcnn_jax.report.charts import (
    Mark,
    Series,
    bar_chart,
    histogram,
    line_chart,
    number,
    small_bar,
    tick_text,
    ticks,
)
from tests.report.test_page import Balanced


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 2500, [0, 500, 1000, 1500, 2000, 2500]),
        (20, 300, [100, 200, 300]),
        (0, 0.002, [0, 0.0005, 0.001, 0.0015, 0.002]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [3]),
    ],
)
def test_ticks(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_numbers():
    assert [tick_text(value) for value in (0, 0.25, 0.0005, 2e-5, 25_000, 1500)] == [
        *("0", "0.25", "0.0005", "2e-05", "25k", "1500")
    ]
    assert [number(None), number(19.933), number(1234.5), number(0.284, 2)] == [
        "-",
        "19.9",
        "1,234.5",
        "0.28",
    ]


def test_lines_by_hand():
    chart = line_chart(
        "A <title>",
        [Series("a & b", [(0, 0), (1, 1)]), Series("c", [(0, 0.5), (0.5, float("nan")), (1, 0.5)])],
        x_name="recall",
        y_name="precision",
        x_range=(0, 1),
        y_range=(0, 1),
        marks=[Mark(0.25, "0.25")],
        diagonal=True,
    )
    Balanced().feed(chart)
    # From corner to corner of the plot, then across its middle without the point that is no number.
    assert 'd="M60.0 200.0L362.0 10.0" class="l c0"' in chart
    assert 'd="M60.0 105.0L362.0 105.0" class="l c1"' in chart
    assert 'd="M60 200L362 10" class="mark"' in chart and 'd="M135.5 10V200" class="mark"' in chart
    assert "A &lt;title&gt;" in chart and "a &amp; b" in chart
    (words,) = re.findall('aria-label="(.*?)"', chart)
    assert words.startswith(
        "precision over recall. a &amp; b: from 0 at 0 to 1 at 1, at most 1 at 1; c: from"
    )


def test_lines_without_values():
    for series in ([], [Series("a", [])], [Series("a", [(0, float("inf"))])]):
        assert "No values." in line_chart("title", series, x_name="x", y_name="y")
    one = line_chart("title", [Series("", [(5, 0)])], x_name="x", y_name="y")
    assert "<circle" in one and "nan" not in one and "<ul" not in one


def test_bars_by_hand():
    chart = bar_chart("title", [("missed", 10, "10 (3)"), ("false <", 5, "5"), ("none", 0, "0")])
    Balanced().feed(chart)
    widths = [float(width) for width in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"', chart)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-3) and widths[2] == 1
    assert 'aria-label="missed 10 (3); false &lt; 5; none 0"' in chart
    assert "No values." in bar_chart("title", [])
    assert "nan" not in bar_chart("title", [("none", 0, "0")])


def test_histogram_by_hand():
    chart = histogram(
        "title", [0, 10, 20], [1, 4], x_name="pixels", y_name="objects", marks=[Mark(1, "here")]
    )
    Balanced().feed(chart)
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="c0"', chart)]
    assert heights[1] == pytest.approx(4 * heights[0]) and "<title>10 to 20: 4</title>" in chart
    assert 'aria-label="objects by pixels: 5 in all, most (4) at 10 to 20"' in chart
    for counts in ([0, 0], []):
        empty = histogram("title", range(len(counts) + 1), counts, x_name="x", y_name="y")
        assert "nan" not in empty and "0 in all" in empty


def test_small_bars():
    assert 'width="30' in small_bar(0.5) and 'width="60' in small_bar(2)
    assert 'aria-hidden="true"' in small_bar(0)
