"""Typed access to fields of untrusted JSON.

Each function returns ``entry[key]`` or raises ValueError naming ``where`` (file, image or annotation id), the
field, the value and the rule; if ``where`` is empty, the message begins with the field.
"""

from typing import Any, TypeGuard


def error(where: str, key: str, rule: str, value: Any) -> ValueError:
    """A ValueError that names the place, the field, the rule and the value."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ValueError((f"{where}: " if where else "") + f"{key} must be {rule}, got {shown}")


def integer(entry: dict, key: str, where: str = "", *, minimum: int | None = None) -> int:
    """The field as an integer that fits 64 bits and is at least ``minimum``; 640.0 counts as 640."""
    value = as_integer(entry.get(key))
    if value is None or not -(2**63) <= value < 2**63 or (minimum is not None and value < minimum):
        rule = "an integer" + ("" if minimum is None else f" >= {minimum}")
        raise error(where, key, rule, entry.get(key))
    return value


def as_integer(value: Any) -> int | None:
    """``value`` as an integer if it is one, or a whole float; otherwise None.

    Tables turn a column of integers into floats as soon as one is missing. From 2**53 on, a float is not
    necessarily the number that was meant.
    """
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if type(value) is int else None


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


def is_numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether ``value`` is a list of numbers within +-1e9, so that later arithmetic cannot overflow."""
    return isinstance(value, list) and all(
        type(number) in (int, float) and abs(number) <= 1e9 for number in value
    )
