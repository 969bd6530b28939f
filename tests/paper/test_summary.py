"""Differences between rows: paired by seed, with Student's interval."""

import math

import pytest

from mrcnn_jax.paper.summary import differences, to_dict, to_text
from mrcnn_jax.paper.tables import BOX, MASK, Row, Table

TABLE = Table(
    "9z",
    "Three rows",
    "the others are better",
    (
        Row("first", "a", {BOX: 30.0}),
        Row("second", "b", {BOX: 32.0, MASK: 20.0}),
        Row("third", "c", {BOX: 31.0, MASK: 18.0}),
    ),
)


def test_by_hand():
    """Seeds differ by far more than rows do: by pairs the second is 1, 2 and 3 better, 2 ± 4.30 / sqrt(3)."""
    scores = {
        "a": {0: {BOX: 10.0}, 1: {BOX: 20.0}, 2: {BOX: 30.0}},
        "b": {0: {BOX: 11.0, MASK: 5.0}, 1: {BOX: 22.0, MASK: 6.0}, 2: {BOX: 33.0, MASK: 7.0}},
        "c": {1: {BOX: 21.0, MASK: 4.0}},
    }
    second, third, masks = differences(TABLE, scores)
    assert (second.row.label, second.reference.label, second.metric) == ("second", "first", BOX)
    assert (second.paper, second.ours, second.mean) == (2.0, (1.0, 2.0, 3.0), 2.0)
    assert second.margin == pytest.approx(4.30 / math.sqrt(3), abs=0.01)
    assert second.verdict == "noise"  # 2.0 is less than 2.48
    assert (third.ours, third.margin, third.verdict) == ((1.0,), math.inf, "noise")
    # The first row has no masks, so that the third is compared with the second.
    assert (masks.reference.label, masks.paper, masks.ours) == ("second", -2.0, (-2.0,))


@pytest.mark.parametrize(("better", "verdict"), [(2.0, "yes"), (-2.0, "no"), (0.1, "noise")])
def test_verdict(better, verdict):
    scores = {
        "a": {seed: {BOX: 10.0 + seed} for seed in range(3)},
        "b": {seed: {BOX: 10.0 + seed + better + 0.1 * seed, MASK: 1.0} for seed in range(3)},
    }
    assert differences(TABLE, scores)[0].verdict == verdict


def test_no_difference_in_the_paper():
    table = TABLE._replace(rows=(TABLE.rows[0], TABLE.rows[1]._replace(paper={BOX: 30.0})))
    runs = {"a": {0: {BOX: 10.0}, 1: {BOX: 11.0}}, "b": {0: {BOX: 10.1}, 1: {BOX: 10.9}}}
    assert differences(table, runs)[0].verdict == "yes"
    runs["b"] = {0: {BOX: 15.0}, 1: {BOX: 16.01}}
    assert differences(table, runs)[0].verdict == "no"


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
            "metric": "box AP", "row": "second", "from": "first", "paper": 2.0, "seeds": [2.0], "mean": 2.0,
            "shows": "noise",
        }
    ]  # fmt: skip
