"""Differences between rows: paired by seed, with Student's interval."""

import math

import pytest

from mrcnn_jax.paper.summary import differences, to_dict, to_text
from mrcnn_jax.paper.tables import BOX, MASK, Comparison, Row, Table

TABLE = Table(
    "9z",
    "Three rows",
    "the others are better",
    (
        Row("first", "a", {BOX: 30.0}),
        Row("second", "b", {BOX: 32.0, MASK: 20.0}),
        Row("third", "c", {BOX: 31.0, MASK: 18.0}),
    ),
    (
        Comparison("second", "first"),
        Comparison("third", "first"),
        Comparison("third", "second"),
    ),
)
ON_PAR = TABLE._replace(comparisons=(Comparison("second", "first", on_par=True),))


def test_by_hand():
    """Seeds differ by far more than rows do: by pairs the second is 1, 2 and 3 better, 2 ± 4.30 / sqrt(3)."""
    scores = {
        "a": {0: {BOX: 10.0}, 1: {BOX: 20.0}, 2: {BOX: 30.0}},
        "b": {0: {BOX: 11.0, MASK: 5.0}, 1: {BOX: 22.0, MASK: 6.0}, 2: {BOX: 33.0, MASK: 7.0}},
        "c": {1: {BOX: 21.0, MASK: 4.0}},
    }
    second, third, boxes, masks = differences(TABLE, scores)
    assert (second.row.label, second.reference.label, second.metric) == ("second", "first", BOX)
    assert (second.paper, second.ours, second.mean) == (2.0, (1.0, 2.0, 3.0), 2.0)
    assert second.margin == pytest.approx(4.30 / math.sqrt(3), abs=0.01)
    assert second.verdict == "noise"  # 2.0 is less than 2.48
    assert (third.ours, third.margin, third.verdict) == ((1.0,), math.inf, "one seed")
    # The first row has no masks.
    assert (boxes.metric, boxes.label, boxes.paper, boxes.ours) == (BOX, "third over second", -1.0, (-1.0,))
    assert (masks.metric, masks.label, masks.paper, masks.ours) == (MASK, "third over second", -2.0, (-2.0,))


@pytest.mark.parametrize(("better", "verdict"), [(2.0, "yes"), (-2.0, "no"), (0.1, "noise")])
def test_verdict(better, verdict):
    scores = {
        "a": {seed: {BOX: 10.0 + seed} for seed in range(3)},
        "b": {seed: {BOX: 10.0 + seed + better + 0.1 * seed, MASK: 1.0} for seed in range(3)},
    }
    assert differences(TABLE, scores)[0].verdict == verdict


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ((0.5, 0.6, 0.7), "yes"),  # 0.6 ± 0.25
        ((-0.6, -0.5, -0.4), "yes"),
        ((0.0, 0.5, 1.0), "noise"),  # 0.5 ± 1.24
        ((0.0, 8.0, 16.0), "noise"),  # includes 0 and much more
        ((0.6, 0.7, 1.4), "noise"),
        ((2.0, 2.1, 2.2), "no"),
        ((0.1,), "one seed"),  # which shows nothing
    ],
)
def test_rows_on_par(points, verdict):
    scores = {
        "a": {seed: {BOX: 10.0} for seed in range(len(points))},
        "b": {seed: {BOX: 10.0 + point, MASK: 1.0} for seed, point in enumerate(points)},
    }
    (found,) = differences(ON_PAR, scores)
    assert found.label == "second beside first"
    assert found.verdict == verdict


def test_rows_that_have_not_been_run():
    assert differences(TABLE, {}) == []
    text = to_text(TABLE, {"b": {0: {BOX: 12.0, MASK: 3.0}}})
    assert [line.split() for line in text.splitlines()[4:7]] == [
        ["first", "-", "30.0", "0"],
        ["second", "12.0", "32.0", "3.0", "20.0", "1"],
        ["third", "-", "31.0", "-", "18.0", "0"],
    ]


def test_plain_values_for_json():
    scores = {"a": {0: {BOX: 10.0}}, "b": {0: {BOX: 12.0, MASK: 3.0}}}
    content = to_dict(TABLE, scores)
    assert content["rows"][1]["seeds"] == {"0": {"box AP": 12.0, "mask AP": 3.0}}
    assert content["differences"] == [
        {
            "metric": "box AP", "row": "second", "from": "first", "on par": False, "paper": 2.0,
            "seeds": [2.0], "mean": 2.0, "margin": None, "shows": "one seed",
        }
    ]  # fmt: skip
