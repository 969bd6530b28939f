"""Glob patterns that choose arrays of the model by their dotted names: in them ``*`` stands for dots, too."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_NEAR = 5  # names that a message suggests


def matched(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that the whole of ``pattern`` matches, such as "backbone.layer1.0.conv1.kernel"."""
    return [name for name in names if fnmatchcase(name, pattern)]


def check_patterns(field: str, patterns: Sequence[str], names: Iterable[str], *, what: str) -> None:
    """Raises ValueError, with names and patterns that are near, for every pattern that matches no name.

    The message calls the patterns' config ``field`` and ``what`` the names are of, such as "trained array".
    """
    names = list(names)
    parts = [name.split(".") for name in names]
    known = list(dict.fromkeys(".".join([*p[:end], "*"]) for p in parts for end in range(1, len(p)))) + names
    problems = []
    for pattern in dict.fromkeys(patterns):
        if not matched(pattern, names):
            near = difflib.get_close_matches(pattern, known, n=_NEAR, cutoff=0)
            problems.append(f"{field} has {pattern!r}, which matches no {what}; nearest: {', '.join(near)}")
    if problems:
        raise ValueError("\n".join(problems))
