"""All tables of the paper and the files in configs/paper."""

import ast
import re

import pytest

from mrcnn_jax.paper.full_tables import FULL_TABLES
from mrcnn_jax.weights.zoo_models import BACKBONES, CONFIGS, named_config

FILES = sorted(path.stem for path in (CONFIGS / "paper").glob("*.py"))
ROWS = [row for table in FULL_TABLES.values() for row in table.rows]


def _docstring(name):
    return ast.get_docstring(ast.parse((CONFIGS / "paper" / f"{name}.py").read_text()))


def test_every_config_is_a_row():
    assert sorted(row.config for row in ROWS) == FILES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_a_row_has_the_numbers_of_its_config(row):
    assert all(f"{value}" in _docstring(row.config) for value in row.paper.values()), row


@pytest.mark.parametrize("name", FILES)
def test_a_config_names_weights_that_fit_it(name):
    doc = _docstring(name)
    if "--init=" in doc:
        return
    model = named_config(f"paper/{name}").model
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
