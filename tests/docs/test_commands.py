"""The commands of the documentation that train, by what has to be in them."""

import shlex
from pathlib import Path

from mrcnn_jax.config.fields import SETTINGS

ROOT = Path(__file__).parents[2]


def finetuning(page: Path) -> list[list[str]]:
    """The arguments of every command of a page that trains a config of ``finetune``."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("    mrcnn-jax train ")]
    return [command for command in commands if command[2].startswith("--config=finetune")]


def test_finetuning_begins_from_weights():
    """Otherwise it trains a random backbone, whose frozen stages stay random."""
    commands = [command for page in (ROOT / "docs").glob("*.md") for command in finetuning(page)]
    assert len(commands) >= 9
    for command in commands:
        assert any(argument.startswith("--init=torchvision/") for argument in command), command


def test_a_run_has_one_value_of_what_is_fixed():
    """In the FAQ, whose commands are tried one after the other: to resume a run with another is an error."""
    fixed: dict[str, set[tuple[str, ...]]] = {}
    for command in finetuning(ROOT / "docs" / "faq.md"):
        (workdir,) = (argument for argument in command if argument.startswith("--workdir="))
        given = [argument for argument in command if argument.startswith("--config.")]
        name_of = {argument: argument.partition("=")[0].removeprefix("--config.") for argument in given}
        values = tuple(argument for argument in given if not SETTINGS[name_of[argument]].resumable)
        fixed.setdefault(workdir, set()).add(values)
    assert len(fixed) >= 6 and all(len(values) == 1 for values in fixed.values()), fixed
