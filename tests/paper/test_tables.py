"""The paper's tables and the files in configs/paper."""

import ast
import re

import pytest

from mrcnn_jax.config.io import validate
from mrcnn_jax.paper.full_tables import FULL_TABLES
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.weights.zoo_models import BACKBONES, CONFIGS, named_config

FILES = sorted(path.stem for path in (CONFIGS / "paper").glob("*.py"))
ROWS = [row for table in FULL_TABLES.values() for row in table.rows]


@pytest.mark.parametrize("name", FILES)
def test_every_config_is_valid(name):
    validate(named_config(f"paper/{name}"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_a_row_has_the_numbers_of_its_config(row):
    path = CONFIGS / "paper" / f"{row.config}.py"
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert all(f"{value}" in doc for value in row.paper.values()), row


def test_every_config_is_a_row():
    assert {row.config for row in ROWS} == set(FILES)


def test_every_metric_is_compared():
    for table in TABLES.values():
        for metric in table.metrics:
            assert sum(metric in row.paper for row in table.rows) > 1, (table.number, metric)


@pytest.mark.parametrize("name", FILES)
def test_a_config_names_weights_that_fit_it(name):
    doc = ast.get_docstring(ast.parse((CONFIGS / "paper" / f"{name}.py").read_text()))
    model = named_config(f"paper/{name}").model
    if "--init=" in doc:
        return
    weights = re.search(r"--config\.model\.backbone_weights=(\S+)", doc)[1]
    if weights == "WEIGHTS":
        assert "did not publish" in doc
        return
    assert weights in BACKBONES
    depth, groups, width = re.search(r"-(\d+)(?:-(\d+)x(\d+)d)?", weights).groups()
    assert model.backbone_depth == int(depth)
    assert (model.backbone_groups, model.backbone_group_width) == (int(groups or 1), int(width or 64))
    assert (model.pixel_order, model.pixel_std) == ("bgr", (1.0, 1.0, 1.0))
    assert model.backbone_stride_in_1x1 == ("MSRA" in weights)
