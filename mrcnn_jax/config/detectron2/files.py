"""Reads a YAML file of Detectron2, and the files that it is based on, without trusting them."""

import ast
import difflib
import warnings
from pathlib import Path
from typing import Any

from mrcnn_jax.config.detectron2.defaults import DEFAULTS, OTHER_ARCHITECTURES, flatten
from mrcnn_jax.yaml_files import parse_yaml

_BASE = "_BASE_"
_LARGEST = 1_000_000  # bytes: Detectron2 writes some 10,000 of all its keys


def read_settings(path: Path) -> dict[str, Any]:
    """The value of every key of Detectron2, by its dotted name, as the file and those before it set it.

    ``_BASE_`` names the file whose values this one changes, relative to its folder. As there, a text that is
    a Python literal counts as that: ``(60000, 80000)`` and ``1e-4``, which YAML has for text. Lists become
    tuples. Nothing is evaluated, and tags such as ``!!python/object/apply:eval`` are refused.

    Raises OSError if a file cannot be read, and ValueError if one is not a file of settings, or if there is a
    key that Detectron2 does not have, or a value of another type than its default's.
    """
    given = {name: value for file in _chain(path) for name, value in file.items()}
    problems = [
        problem
        for name, value in given.items()
        if not name.startswith(OTHER_ARCHITECTURES) and (problem := _problem(name, value))
    ]
    if problems:
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    return {name: _like(given.get(name, default), default) for name, default in DEFAULTS.items()}


def _chain(path: Path) -> list[dict[str, Any]]:
    """The flat content of the file and of its bases, that of the first base first."""
    files: dict[Path, dict[str, Any]] = {}
    while True:
        if path.resolve() in files:
            raise ValueError(f"{path}: {_BASE} leads back to this file")
        content = _load(path)
        base = content.pop(_BASE, None)
        files[path.resolve()] = {name: _decoded(value) for name, value in flatten(content).items()}
        if base is None:
            return list(files.values())[::-1]
        if not isinstance(base, str) or "://" in base:
            raise ValueError(f"{path}: {_BASE} is {base!r}; must be the path of a file on this machine")
        path = path.parent / Path(base).expanduser()


def _load(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    if path.exists() and (size := path.stat().st_size) > _LARGEST:
        raise ValueError(f"{path}: has {size} bytes; a file of settings has at most {_LARGEST}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    content = parse_yaml(text, path)
    if not isinstance(content, dict) or not _has_text_keys(content):
        raise ValueError(f"{path}: has no settings of Detectron2, such as MODEL and SOLVER")
    return content


def _has_text_keys(content: dict) -> bool:
    return all(
        isinstance(key, str) and (not isinstance(value, dict) or _has_text_keys(value))
        for key, value in content.items()
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        try:
            with warnings.catch_warnings(action="ignore"):  # of text that looks like odd Python
                value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return value
    return _as_tuples(value)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _problem(name: str, value: Any) -> str:
    """What is wrong with a key or its value; "" for nothing."""
    if name not in DEFAULTS:
        near = difflib.get_close_matches(name, DEFAULTS, n=1)
        return f"{name} is no key of Detectron2" + (f"; {near[0]} is" if near else "")
    default = DEFAULTS[name]
    # What Detectron2's own tests expect has values of all types, and nothing here reads it.
    if _fits(value, default) or name == "TEST.EXPECTED_RESULTS":
        return ""
    return f"{name} is {value!r}; must be of the type of its default, {default!r}"


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        kinds = set(map(_kind, _leaves(default))) or {str}  # of the empty ones, most are names
        return set(map(_kind, _leaves(value))) <= kinds
    if default is None:
        return value is None or _kind(value) is float
    return type(value) is type(default) or (type(value), type(default)) == (int, float)


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple) else [value]


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _like(value: Any, default: Any) -> Any:
    """The value as its default is: a single one stands for a tuple of one, a whole number for a float."""
    if isinstance(default, tuple) and not isinstance(value, tuple):
        return (value,)
    return float(value) if isinstance(default, float) else value
