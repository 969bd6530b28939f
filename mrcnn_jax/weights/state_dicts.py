"""Finds the state dict in a checkpoint's content by the names of its arrays.

A checkpoint may hold it under a key ("state_dict", "ema") or in a list, and wrappers such as
DistributedDataParallel put a prefix in front of its names ("module."). Both are found by the names that a
model's arrays have, so no list of keys or prefixes is needed.
"""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mrcnn_jax.weights.pickles import Stored

State = Mapping[str, Stored]

# Put anywhere into names by torch.compile, FSDP and activation checkpointing.
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# Prefixes of a slowly following copy, with that of the trained network beside it: MoCo's, versions 1 and 3.
_COPIES = {"encoder_k": "encoder_q", "momentum_encoder": "base_encoder"}

# Deeper dicts and longer prefixes are not looked at, so that no file can take forever.
_MAX_DEPTH = 8

_MIN_FIT = 0.1  # of the model's names; a coincidence, such as a block that looks like a stem, has fewer
_SAME_FIT = 0.9  # of the best set's names: as good a choice


def find_state_dicts(content: Any) -> dict[str, State]:
    """The dicts in ``content`` that hold arrays, by the dotted keys under which they lie ("" for the top).

    The key of an item of a list is its number. The names in the dicts are without the marks of torch.compile,
    FSDP and activation checkpointing, and Caffe2's momentum is left out. Raises ValueError if ``content`` is
    not a dict and has none.
    """
    found: dict[str, State] = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, content)]
    seen = {id(content)}  # a dict may be there under several keys, or in itself
    for key, depth, values in waiting:
        if isinstance(values, dict):
            arrays = {
                _WRAPPERS.sub("", name): value
                for name, value in values.items()
                if isinstance(value, Stored) and not name.endswith("_momentum")
            }
            if arrays:
                found[key] = arrays
        for name, value in _items(values):
            if isinstance(value, dict | list | tuple) and id(value) not in seen and depth < _MAX_DEPTH:
                seen.add(id(value))
                waiting.append((_joined(key, name), depth + 1, value))
    if not found and not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}; it must hold a dict of arrays")
    return found


def _items(values: Any) -> Iterable[tuple[str, Any]]:
    match values:
        case dict():
            return values.items()
        case list() | tuple():
            return ((str(number), value) for number, value in enumerate(values))
    return ()


def choose(states: Mapping[str, State], wanted: Collection[str], key: str | None = None) -> tuple[State, str]:
    """The arrays that have most of the ``wanted`` names, by these names, and where they were found.

    The latter is the dotted path of keys and prefix, e.g. "state_dict.module". Arrays without that prefix
    are left out. If hardly any name is wanted, all arrays of the largest dict are returned.

    Args:
        states: See ``find_state_dicts``.
        wanted: The names that a model's arrays have; may be empty.
        key: The path, or the beginning of the path, to choose from; None for any.

    Raises ValueError, naming the paths, if several fit or none begins with ``key``.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for where, arrays in states.items():
        for name in arrays:
            counts.update((where, prefix) for prefix in _prefixes(name) if name[len(prefix) :] in wanted)
    if key is not None:
        counts = Counter({place: count for place, count in counts.items() if _is_under(_path(place), key)})
        places = {where for where, _ in counts}
        chosen = {
            where: arrays for where, arrays in states.items() if where in places or _is_under(where, key)
        }
        if not chosen:
            raise ValueError(f"it has no arrays under {key!r}, only under {_listed(states)}")
        states = chosen
    best = max(counts.values(), default=0)
    if not best or best < _MIN_FIT * len(wanted):
        where = max(states, key=lambda where: len(states[where]))
        return states[where], where
    fitting = [place for place, count in counts.items() if count >= _SAME_FIT * best]
    paths = {_path(place): place for place in fitting}
    for path in _copies(paths):
        del paths[path]
    if len(paths) > 1:
        raise ValueError(
            f"it has several sets of weights that fit: {_listed(paths)}; choose one with "
            "mrcnn-jax convert --key=KEY, or save one of them in a file of its own"
        )
    ((path, (where, prefix)),) = paths.items()
    return _without(prefix, states[where]), path


def _prefixes(name: str) -> Iterable[str]:
    """What may be cut off a dotted name: "", and each beginning that ends in a dot."""
    dots = itertools.islice(re.finditer(r"\.", name), _MAX_DEPTH)
    return ["", *(name[: dot.end()] for dot in dots)]


def _without(prefix: str, arrays: State) -> State:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _copies(paths: Collection[str]) -> list[str]:
    """The paths of copies beside which the trained network is there, too."""
    return [
        path
        for path in paths
        for copy, trained in _COPIES.items()
        if re.search(rf"\b{copy}$", path) and re.sub(rf"\b{copy}$", trained, path) in paths
    ]


def _path(place: tuple[str, str]) -> str:
    where, prefix = place
    return _joined(where, prefix.removesuffix("."))


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)


def _is_under(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def _listed(paths: Iterable[str]) -> str:
    # The keys come from the file: quoted and truncated, so that they cannot control the user's terminal.
    names = [repr(path[:60]) for path in paths]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
