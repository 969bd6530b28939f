"""The commands that are printed for COCO: every config in them is valid."""

import ast
import re
import shlex

import pytest

from mrcnn_jax.config import to_dict
from mrcnn_jax.config.io import from_dict, validate
from mrcnn_jax.paper.full_scale import commands
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.weights.zoo_models import named_config


def _config(arguments):
    """The config of a training's arguments."""
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    values = to_dict(named_config(flags["config"]))
    for name, value in flags.items():
        if match := re.fullmatch(r"config\.(\w+)\.(\w+)", name):
            plain = value if isinstance(values[match[1]][match[2]], str) else ast.literal_eval(value)
            values[match[1]][match[2]] = plain
    return from_dict(values), flags


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.number)
def test_by_reading_the_commands(table):
    script = "\n".join(commands(table, "runs/paper"))
    lines = [
        shlex.split(line) for line in script.replace("\\\n", " ").splitlines() if line[:1] not in ("", "#")
    ]
    proposed, trained, evaluated = set(), {}, []
    for _, command, *arguments in lines:
        if command == "train":
            config, flags = _config(arguments)
            validate(config)
            trained[flags["workdir"]] = config
            if not config.model.rpn:
                assert {config.data.train_proposals, config.data.val_proposals} <= proposed
        else:
            flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
            config = trained[flags["workdir"]]
            if command == "propose":
                assert not config.model.box
                proposed.add(flags["output"].removeprefix(f"{config.data.root}/"))
            else:
                assert command == "evaluate" and not config.model.rpn
                evaluated.append(flags["workdir"].rpartition("/")[2])
    assert evaluated == [row.config for row in table.rows]
    for row in table.rows:
        for value in row.paper.values():
            assert f" {value}" in script
