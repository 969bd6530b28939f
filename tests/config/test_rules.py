"""Declarations of fields: what they hold, and that no field of the config goes without."""

from dataclasses import dataclass, field, fields

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.rules import (
    Setting,
    anything,
    architecture,
    behaviour,
    between,
    free,
    inference,
    not_empty,
    not_negative,
    one_of,
    positive,
    settings_of,
    share,
    training,
)


@dataclass
class Section:
    depth: int = architecture(50, one_of(18, 50))
    sizes: tuple[float, ...] = behaviour((8.0, 16.0), not_empty, positive)
    flip: bool = training(True)
    threshold: float = inference(0.5, share)
    root: str = free("", anything)


@dataclass
class Declared:
    part: Section = field(default_factory=Section)


def test_a_declaration_by_hand():
    assert Section() == Section(50, (8.0, 16.0), True, 0.5, "")
    assert settings_of(Declared) == {
        "part.depth": Setting(
            "architecture", resumable=False, rules=fields(Section)[0].metadata["setting"].rules
        ),
        "part.sizes": Setting("behaviour", resumable=False, rules=(not_empty, positive)),
        "part.flip": Setting("neither", resumable=False, rules=()),
        "part.threshold": Setting("behaviour", resumable=True, rules=(share,)),
        "part.root": Setting("neither", resumable=True, rules=(anything,)),
    }


@dataclass
class Careless:
    declared: int = training(3, positive)
    plain: int = 3
    made: float = field(default=0.5)
    number: float = training(0.5)
    word: str = free("")
    sizes: tuple[int, ...] = architecture(())
    switch: bool = free(True)
    plain_switch: bool = True


@dataclass
class Undeclared:
    part: Careless = field(default_factory=Careless)


def test_a_field_without_declaration_or_rule_is_refused_by_name():
    with pytest.raises(TypeError) as error:
        settings_of(Undeclared)
    undeclared, no_rule = (
        "must say what it decides, by a function of config/rules.py",
        "must have a rule, if only",
    )
    assert [line.split(" ", 1)[0] for line in str(error.value).splitlines() if undeclared in line] == [
        "part.plain",
        "part.made",
        "part.plain_switch",
    ]
    assert [line.split(" ", 1)[0] for line in str(error.value).splitlines() if no_rule in line] == [
        "part.number",
        "part.word",
        "part.sizes",
    ]
    assert len(str(error.value).splitlines()) == 6


def test_every_field_of_the_config_is_declared():
    names = [f"{section.name}.{field.name}" for section in fields(Config) for field in fields(section.type)]
    assert list(SETTINGS) == names == list(settings_of(Config))


def test_the_architecture_is_the_models():
    assert {
        name.split(".")[0] for name, setting in SETTINGS.items() if setting.decides == "architecture"
    } == {"model"}


def test_all_of_test_may_change_when_a_run_is_resumed():
    assert all(setting.resumable for name, setting in SETTINGS.items() if name.startswith("test."))


@pytest.mark.parametrize(
    ("rule", "words", "good", "bad"),
    [
        (
            positive,
            "must be positive",
            [1, 0.1, (1, 2), ((1, 2), (3, 4)), ()],
            [0, -1, (1, 0), ((1, 2), (3, -4))],
        ),
        (not_negative, "must not be negative", [0, 0.0, (0, 1)], [-1, -0.1, (0, -1)]),
        (share, "must be between 0 and 1", [0, 0.0, 0.5, 1.0], [-0.1, 1.1, (0.5, 2.0)]),
        (between(0, 5), "must be between 0 and 5", [0, 5], [-1, 6]),
        (one_of("a", "b"), "must be one of 'a', 'b'", ["a", "b"], ["", "c", "A"]),
        (one_of(0, 1), "must be one of 0, 1", [0, 1], [2]),
        (not_empty, "must not be empty", ["a", (0,)], ["", ()]),
        (anything, "may be anything", ["", "a", 0, ()], []),
    ],
)
def test_rules_by_hand(rule, words, good, bad):
    assert rule.words == words
    assert all(rule.holds(value) for value in good)
    assert not any(rule.holds(value) for value in bad)
