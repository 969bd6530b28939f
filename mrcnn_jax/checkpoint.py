"""Saved runs: a directory that describes itself.

    config.json       the settings (mrcnn_jax/config.py)
    categories.json   what the labels mean
    checkpoints/500/  the arrays after 500 steps: ``weights``, all that inference needs, and ``training``

Both of these are flat dicts, keyed by the dotted path of an array. The only module that imports orbax.
"""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import jax
import orbax.checkpoint as ocp
from jax import Array
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config_io import differences, from_dict, typed, validate
from mrcnn_jax.types import Categories

_CONFIG_FILE = "config.json"
_CATEGORIES_FILE = "categories.json"
_CHECKPOINTS = "checkpoints"
_ITEMS = ("weights", "training")

# Fields that a run may be continued with other values of: the steps it has taken would have been the same.
_CHANGEABLE = {
    "data.root",
    "data.val_images",
    "data.val_annotations",
    "data.val_keypoints",
    "data.test_short_side",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.eval_every",
    "train.eval_images",
}

# Orbax reports every step of its work through absl's logger; its errors still come through.
logging.getLogger("absl").addFilter(
    lambda record: "orbax" not in record.pathname or record.levelno >= logging.ERROR
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's directory says about its model, apart from the arrays."""

    config: Config
    categories: Categories


def write_run(workdir: str | Path, config: Config, categories: Categories) -> None:
    """Makes ``workdir`` a run's directory, or checks that it is the same run's, about to be continued.

    Continued, ``config`` may differ in what changes none of the steps taken: ``test``, where the data is,
    the validation set, how often the run reports, saves and evaluates, and ``train.steps`` unless the
    schedule depends on it ("cosine" does). The directory then holds the new values. Raises ValueError if
    anything else differs, or if ``categories`` contradict themselves.
    """
    workdir = Path(workdir)
    _check_categories(categories)
    if (workdir / _CONFIG_FILE).exists():
        run = read_run(workdir)
        problems = [line for line in differences(config, run.config) if not _may_change(line, config)]
        problems += [
            f"categories.{field.name}: {here!r} here, {in_run!r} in the run"
            for field in dataclasses.fields(Categories)
            if (here := getattr(categories, field.name)) != (in_run := getattr(run.categories, field.name))
        ]
        if problems:
            raise ValueError(
                f"{workdir} holds a run with other settings:\n  "
                + "\n  ".join(problems)
                + "\ntrain in another --workdir, or give this run's settings to continue it"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    # The config comes last: with it, the directory is a run.
    _write_json(workdir / _CATEGORIES_FILE, dataclasses.asdict(categories))
    _write_json(workdir / _CONFIG_FILE, to_dict(config))


def read_run(workdir: str | Path) -> Run:
    """What ``write_run`` wrote.

    Raises FileNotFoundError if ``workdir`` is missing or not a run's directory, and ValueError, naming the
    file, if one is malformed or holds a field or value that there may not be.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"{workdir}: there is no such directory; a run's directory is made by training"
        )
    if not (workdir / _CONFIG_FILE).exists():
        raise FileNotFoundError(f"{workdir} is not a run's directory: it has no {_CONFIG_FILE}")
    values = _read_json(workdir / _CONFIG_FILE)
    try:
        config = from_dict(values)
        validate(config)
    except ValueError as error:
        raise ValueError(f"{workdir / _CONFIG_FILE}: {error}") from error
    values = _read_json(workdir / _CATEGORIES_FILE)
    try:
        categories = _categories_from_dict(values)
        _check_categories(categories)
    except ValueError as error:
        raise ValueError(f"{workdir / _CATEGORIES_FILE}: {error}") from error
    return Run(config, categories)


class Checkpoints:
    """The checkpoints of a run, for training: a context manager that waits for the last save on leaving.

    Kept are the latest ``keep`` and, besides, the best: that with the highest mean of its metrics. A save
    that was cut short leaves nothing that counts as a checkpoint; the next ``Checkpoints`` removes it.
    """

    def __init__(self, workdir: str | Path, *, keep: int) -> None:
        best = BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        self._manager = _manager(
            workdir,
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.close()

    def save(
        self, step: int, weights: dict[str, Array], training: Any, metrics: dict[str, float] | None = None
    ) -> None:
        """Saves in the background, once the arrays are copied; they may be donated or changed afterwards.

        ``weights`` are keyed by the parameter's dotted path, ``training`` is any pytree of arrays. Raises
        ValueError if there is a checkpoint of this step, and what the previous save failed with, if it did.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights), training=ocp.args.StandardSave(_flat(training))
            ),
            metrics=metrics or None,
            force=True,
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None without any."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the checkpoint with the best metrics; None if none has metrics."""
        return self._manager.best_step()

    def restore(
        self, step: int, weights_like: Mapping[str, Any], training_like: Any
    ) -> tuple[dict[str, Array], Any]:
        """The weights and the training pytree of ``step``, bit for bit, laid out as the arguments say.

        The arguments are arrays or ``jax.ShapeDtypeStruct`` with a sharding. Raises ValueError if there is no
        such step, if the checkpoint is damaged, or if it has other arrays than those asked for.
        """
        self.wait()  # the step may be the one being saved
        like = {"weights": dict(weights_like), "training": _flat(training_like)}
        found = _shapes(self._manager, step, _ITEMS)
        for item in _ITEMS:
            wanted = {name: _stored(array) for name, array in like[item].items()}
            check_same(wanted, found[item], source=f"{_directory(self._manager, step)}, {item}")
        restored = _restore(self._manager, step, like)
        return restored["weights"], jax.tree.unflatten(
            jax.tree.structure(training_like), restored["training"].values()
        )

    def wait(self) -> None:
        """Returns when the save in progress is done. Raises what it failed with, if it did."""
        self._manager.wait_until_finished()


def load_weights(
    workdir: str | Path, step: int | Literal["best"] | None = None
) -> tuple[int, dict[str, Array]]:
    """The step and the weights, by parameter path, of a run's newest checkpoint, of its best or of ``step``.

    They lie on one device, whichever wrote them. Raises FileNotFoundError if there is no checkpoint,
    ValueError if there is none of that step, none with metrics to be the best, or the checkpoint is damaged.
    """
    directory = Path(workdir) / _CHECKPOINTS
    with _manager(workdir, read_only=True, create=False, save_interval_steps=0) as manager:
        if manager.latest_step() is None:
            raise FileNotFoundError(f"{directory}: there is no checkpoint yet")
        wanted = manager.latest_step() if step is None else manager.best_step() if step == "best" else step
        if wanted is None:
            raise ValueError(f"{directory}: no checkpoint was evaluated, so none is the best")
        shapes = _shapes(manager, wanted, ("weights",))
        return wanted, _restore(manager, wanted, shapes)["weights"]


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_same(wanted: Mapping[str, _Shaped], found: Mapping[str, _Shaped], *, source: str) -> None:
    """Nothing, if ``found`` has the arrays that are ``wanted``, in name and shape.

    Raises ValueError otherwise, with everything that is missing, unexpected or of another shape; ``source``
    says where ``found`` is from.
    """
    shapes = [
        f"{name} is {tuple(found[name].shape)}, must be {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and tuple(found[name].shape) != tuple(wanted[name].shape)
    ]
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": shapes,
    }
    lines = [f"\n  {len(names)} {kind}: {_first(names)}" for kind, names in problems.items() if names]
    if lines:
        raise ValueError(f"{source}: the arrays do not fit the model" + "".join(lines))


def _first(names: list[str], count: int = 10) -> str:
    return "; ".join(names[:count]) + ("; ..." if len(names) > count else "")


def _may_change(difference: str, config: Config) -> bool:
    name = difference.partition(":")[0]
    if name == "train.steps":
        return config.train.schedule == "step"
    return name in _CHANGEABLE or name.startswith("test.")


def _manager(workdir: str | Path, **options: Any) -> ocp.CheckpointManager:
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in _ITEMS:
        handler = ocp.StandardCheckpointHandler()
        registry.add(item, ocp.args.StandardSave, handler)
        registry.add(item, ocp.args.StandardRestore, handler)
    return ocp.CheckpointManager(
        Path(workdir).resolve() / _CHECKPOINTS,
        options=ocp.CheckpointManagerOptions(best_fn=_score, save_root_metadata=False, **options),
        handler_registry=registry,
    )


def _score(metrics: dict[str, float]) -> float:
    mean = sum(metrics.values()) / len(metrics)
    return -math.inf if math.isnan(mean) else mean


def _directory(manager: ocp.CheckpointManager, step: int) -> Path:
    return Path(manager.directory) / str(step)


def _shapes(
    manager: ocp.CheckpointManager, step: int, items: tuple[str, ...]
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The arrays of a checkpoint's items, as they would lie on the default device."""
    steps = manager.all_steps()
    if step not in steps:
        raise ValueError(
            f"{manager.directory}: there is no checkpoint of step {step}, only of {sorted(steps)}"
        )
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    try:
        metadata = manager.item_metadata(step)
        return {
            item: {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
                for name, array in metadata[item].items()
            }
            for item in items
        }
    except Exception as error:  # whatever a file cut short makes of orbax
        raise _damaged(manager, step, error) from error


def _restore(
    manager: ocp.CheckpointManager, step: int, like: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Array]]:
    """The items named in ``like``, each with the names in its order."""
    templates = {
        item: {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()
        }
        for item, arrays in like.items()
    }
    arguments = {item: ocp.args.StandardRestore(template) for item, template in templates.items()}
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**arguments))
        return {item: {name: restored[item][name] for name in names} for item, names in like.items()}
    except Exception as error:  # whatever a file cut short makes of orbax and tensorstore
        raise _damaged(manager, step, error) from error


def _damaged(manager: ocp.CheckpointManager, step: int, error: Exception) -> ValueError:
    directory = _directory(manager, step)
    others = [other for other in manager.all_steps() if other != step]
    advice = f"remove it to go on from step {max(others)}" if others else "it was the only one"
    return ValueError(f"{directory}: the checkpoint is damaged ({type(error).__name__}); {advice}")


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their dotted paths, in the pytree's order."""
    leaves = jax.tree.leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the training state have the same dotted path")
    return flat


def _stored(array: Any) -> Any:
    """What has the shape that an array has in a checkpoint: of a random key, the words that it is made of."""
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.eval_shape(jax.random.key_data, array) if is_key else array


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes nested dicts with a line for each value; the file is either the old one or whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(_pretty(values) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _pretty(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    lines = (f"{indent}  {json.dumps(key)}: {_pretty(item, indent + '  ')}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} is not a run's directory: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def _categories_from_dict(values: Any) -> Categories:
    """Raises ValueError for anything but a dict of the fields of ``Categories``, each of its type."""
    types = {field.name: field.type for field in dataclasses.fields(Categories)}
    if not isinstance(values, dict) or set(values) != set(types):
        raise ValueError(f"must be an object of the fields {', '.join(types)}")
    read = {}
    for name, value in values.items():
        try:
            read[name] = typed(value, types[name])
        except TypeError as error:
            raise ValueError(f"{name} is {error}") from error
    return Categories(**read)


def _check_categories(categories: Categories) -> None:
    """Raises ValueError if the fields do not agree with each other."""
    count, keypoints = len(categories.ids), len(categories.keypoint_names)
    pairs = [index for pair in categories.skeleton + categories.flip_pairs for index in pair]
    rules = {
        "ids must not repeat": len(set(categories.ids)) == count,
        f"names must be as many as ids ({count})": len(categories.names) == count,
        f"keypoint_labels must be from 1 to {count}": all(
            1 <= label <= count for label in categories.keypoint_labels
        ),
        f"skeleton and flip_pairs must be of the {keypoints} keypoint_names, from 0": all(
            0 <= index < keypoints for index in pairs
        ),
        f"sigmas must be none or as many as keypoint_names ({keypoints})": len(categories.sigmas)
        in (0, keypoints),
        "sigmas must be positive": all(sigma > 0 for sigma in categories.sigmas),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ValueError("; ".join(broken))
