"""How a field of the config is declared: what its value decides, and which values it may have.

    learning_rate: float = training(0.02, positive)  # after warm-up

declares a field with the default 0.02 that decides the steps of training and must be positive. The word
before the parenthesis is one of the five functions below. The rules after the default must all hold; they
stand at the end of this file, or are made by ``one_of`` and ``between``. A bool needs none.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """Which values a field may have, in words ("must be positive") and as a test."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Setting:
    """What a field's declaration says besides its type and default."""

    decides: Literal["architecture", "behaviour", "neither"]  # of a trained model
    resumable: bool  # may change when a run is resumed, as it does not affect the steps already taken
    rules: tuple[Rule, ...]


def architecture(default: T, *rules: Rule) -> T:
    """A field that decides a model's layers and weights; fixed for as long as the weights are used."""
    return _declare(default, Setting("architecture", resumable=False, rules=rules))


def behaviour(default: T, *rules: Rule) -> T:
    """A field that decides what weights detect, and with which they were trained; fixed for a run."""
    return _declare(default, Setting("behaviour", resumable=False, rules=rules))


def training(default: T, *rules: Rule) -> T:
    """A field that decides the steps of training; fixed for a run."""
    return _declare(default, Setting("neither", resumable=False, rules=rules))


def inference(default: T, *rules: Rule) -> T:
    """A field that decides what weights detect, but not how they are trained; may change at any time."""
    return _declare(default, Setting("behaviour", resumable=True, rules=rules))


def free(default: T, *rules: Rule) -> T:
    """A field that decides none of these, such as where files are; may change at any time."""
    return _declare(default, Setting("neither", resumable=True, rules=rules))


def _declare(default: T, setting: Setting) -> T:
    return dataclasses.field(default=default, metadata={"setting": setting})


def settings_of(config: type) -> dict[str, Setting]:
    """The declaration of each field in the config's sections, by its dotted name, such as ``train.steps``.

    Raises TypeError with every field that is not declared by a function above, and with every field except
    bools that has no rule.
    """
    fields = {
        f"{name}.{field.name}": field
        for name, section in get_type_hints(config).items()
        for field in dataclasses.fields(section)
    }
    settings, problems = {}, []
    for name, field in fields.items():
        setting = field.metadata.get("setting")
        if not isinstance(setting, Setting):
            problems.append(f"{name} must say what it decides, by a function of config/rules.py")
        elif not setting.rules and field.type is not bool:
            problems.append(f"{name} must have a rule, if only ``anything``")
        else:
            settings[name] = setting
    if problems:
        raise TypeError("\n".join(problems))
    return settings


def one_of(*choices: Any) -> Rule:
    """The value is one of ``choices``."""
    return Rule(f"must be one of {', '.join(map(repr, choices))}", lambda value: value in choices)


def between(low: float, high: float) -> Rule:
    """All numbers of the value are between ``low`` and ``high``, or equal to one of them."""
    return _of_numbers(f"must be between {low} and {high}", lambda number: low <= number <= high)


def _of_numbers(words: str, holds: Callable[[float], bool]) -> Rule:
    return Rule(words, lambda value: all(holds(number) for number in numbers(value)))


def numbers(value: Any) -> list[float]:
    """The numbers in a value or in its nested tuples."""
    if isinstance(value, tuple):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


positive = _of_numbers("must be positive", lambda number: number > 0)
not_negative = _of_numbers("must not be negative", lambda number: number >= 0)
below_one = _of_numbers("must be below 1", lambda number: number < 1)
share = between(0, 1)
not_empty = Rule("must not be empty", bool)
no_empty_item = Rule("must not have an empty item", all)
anything = Rule("may be anything", lambda value: True)  # that its type allows; for a path, "" too
