"""Typed access to fields of untrusted JSON.

Each function returns ``entry[key]`` or raises ValueError naming ``where`` (file, image or annotation id), the
field, the value and the rule; if ``where`` is empty, the message begins with the field.
"""

from typing import Any


def error(where: str, key: str, rule: str, value: Any) -> ValueError:
    """A ValueError that names the place, the field, the rule and the value."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ValueError((f"{where}: " if where else "") + f"{key} must be {rule}, got {shown}")


def integer(entry: dict, key: str, where: str = "", *, minimum: int | None = None) -> int:
    """The field as an integer that fits 64 bits and is at least ``minimum``."""
    value = entry.get(key)
    if type(value) is not int or not -(2**63) <= value < 2**63 or (minimum is not None and value < minimum):
        raise error(where, key, "an integer" + ("" if minimum is None else f" >= {minimum}"), value)
    return value


def text(entry: dict, key: str, where: str = "") -> str:
    """The field as a non-empty string."""
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise error(where, key, "a string", value)
    return value


def entries(entry: dict, key: str, where: str) -> list[dict]:
    """The field as a list of JSON objects."""
    value = section(entry, key, where)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise error(where, f"{key}[{index}]", "an object", item)
    return value


def section(entry: dict, key: str, where: str) -> list:
    """The field as a list, its items unchecked."""
    value = entry.get(key)
    if value is None:
        raise ValueError(f"{where}: the section {key!r} is missing")
    if not isinstance(value, list):
        raise error(where, key, "a list", value)
    return value


def is_numbers(value: Any) -> bool:
    """Whether ``value`` is a list of numbers within +-1e9, so that later arithmetic cannot overflow."""
    return isinstance(value, list) and all(
        type(number) in (int, float) and abs(number) <= 1e9 for number in value
    )
