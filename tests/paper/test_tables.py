"""The paper's tables and the files in configs/paper."""

import ast

import pytest

from mrcnn_jax.config.io import validate
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.weights.zoo_models import CONFIGS, named_config

FILES = sorted(path.stem for path in (CONFIGS / "paper").glob("*.py"))
ROWS = [row for table in TABLES.values() for row in table.rows]


@pytest.mark.parametrize("name", FILES)
def test_every_config_is_valid(name):
    validate(named_config(f"paper/{name}"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_a_row_has_the_numbers_of_its_config(row):
    path = CONFIGS / "paper" / f"{row.config}.py"
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert all(f"{value}" in doc for value in row.paper.values()), row


def test_every_config_of_a_reproduced_table_is_a_row():
    listed = {row.config for row in ROWS}
    in_tables = {name for name in FILES if name.removeprefix("table").split("_")[0] in TABLES}
    # X101 is a row of its own size, for COCO alone.
    assert {name for name in in_tables - listed if "x101" not in name} == set()


def test_every_metric_is_compared():
    for table in TABLES.values():
        for metric in table.metrics:
            assert sum(metric in row.paper for row in table.rows) > 1, (table.number, metric)
