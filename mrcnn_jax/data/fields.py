"""Typed fields of JSON entries from files that nobody vouches for.

Each function returns ``entry[key]`` or raises ValueError naming ``where`` (file, image or annotation id), the
field, the value and the rule; without ``where`` it begins with the field.
"""

from typing import Any


def error(where: str, key: str, rule: str, value: Any) -> ValueError:
    """The error that says which field of what breaks which rule."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ValueError((f"{where}: " if where else "") + f"{key} must be {rule}, got {shown}")


def integer(entry: dict, key: str, where: str = "", *, minimum: int | None = None) -> int:
    """An integer of 64 bits, at least ``minimum``."""
    value = entry.get(key)
    if type(value) is not int or not -(2**63) <= value < 2**63 or (minimum is not None and value < minimum):
        raise error(where, key, "an integer" + ("" if minimum is None else f" >= {minimum}"), value)
    return value


def text(entry: dict, key: str, where: str = "") -> str:
    """A string that is not empty."""
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise error(where, key, "a string", value)
    return value


def entries(entry: dict, key: str, where: str) -> list[dict]:
    """A list of JSON objects."""
    value = section(entry, key, where)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise error(where, f"{key}[{index}]", "an object", item)
    return value


def section(entry: dict, key: str, where: str) -> list:
    """A list of anything."""
    value = entry.get(key)
    if value is None:
        raise ValueError(f"{where}: the section {key!r} is missing")
    if not isinstance(value, list):
        raise error(where, key, "a list", value)
    return value


def is_numbers(value: Any) -> bool:
    """Whether ``value`` is a list of numbers within +-1e9, on which no arithmetic here overflows."""
    return isinstance(value, list) and all(
        type(number) in (int, float) and abs(number) <= 1e9 for number in value
    )
