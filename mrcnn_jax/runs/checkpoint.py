"""Saves and restores the arrays of a run (the only module that imports orbax).

``checkpoints/500/`` in the run's directory has two items: ``weights``, which is all that inference needs, and
``training``, the rest of the training state. Both are flat dicts keyed by each array's dotted path. In a run
that starts from imported weights, ``checkpoints/0/`` has ``weights`` only.
"""

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mrcnn_jax.runs.checkpoint_files import UnusableFilesError, check_files, check_sizes, check_steps

_CHECKPOINTS = "checkpoints"
_ITEMS = ("weights", "training")

# Orbax logs every step of its work through absl; let only its errors through.
logging.getLogger("absl").addFilter(
    lambda record: "orbax" not in record.pathname or record.levelno >= logging.ERROR
)


class Checkpoints:
    """Saves and restores a run's checkpoints; as a context manager, waits for the last save on exit.

    Keeps the latest ``keep`` checkpoints and the best one, by the highest mean of its metrics. An interrupted
    save leaves files that do not count as a checkpoint; the next ``Checkpoints`` removes them.
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
        self,
        step: int,
        weights: dict[str, Array],
        training: Any = None,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Saves in the background; returns once the arrays are copied, so they may be donated or changed.

        ``weights`` is keyed by each parameter's dotted path, and ``training`` is any pytree of arrays other
        than random keys; without it, training can start from the checkpoint but not resume. Raises ValueError
        if there already is a checkpoint of this step, and the error of the previous save if that failed.
        """
        items = {"weights": weights}
        if training is not None:
            items["training"] = _flat(training)
        self._manager.save(
            step,
            args=ocp.args.Composite(**{item: ocp.args.PyTreeSave(arrays) for item, arrays in items.items()}),
            metrics=metrics or None,
            force=True,
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def has_training(self, step: int) -> bool:
        """Whether the checkpoint of ``step`` has a training pytree (saved, and not deleted since)."""
        return _has_training(self._manager, step)

    def restore(
        self, step: int, weights_like: Mapping[str, Any], training_like: Any = None
    ) -> tuple[dict[str, Array], Any]:
        """The weights and the training pytree of ``step``, bit for bit, sharded like the arguments.

        The arguments hold arrays or ``jax.ShapeDtypeStruct`` with a sharding; without ``training_like``,
        returns the weights and None. Raises ValueError if there is no such step, if the checkpoint is
        damaged, or if its arrays are not exactly the requested ones.
        """
        self.wait()  # the step may be the one being saved
        like = {"weights": dict(weights_like)}
        if training_like is not None:
            like["training"] = _flat(training_like)
        found = _shapes(self._manager, step, tuple(like))
        for item in like:
            check_arrays_match(like[item], found[item], source=f"{_directory(self._manager, step)}, {item}")
        restored = _restore(self._manager, step, like)
        leaves = restored.get("training", {}).values()
        return restored["weights"], jax.tree.unflatten(jax.tree.structure(training_like), leaves)

    def wait(self) -> None:
        """Blocks until the save in progress is done, and raises its error if it failed."""
        self._manager.wait_until_finished()


def load_weights(
    workdir: str | Path, step: int | Literal["best"] | None = None
) -> tuple[int, dict[str, Array]]:
    """The step and the weights, by parameter path, of a run's newest (None), best or given checkpoint.

    The weights are on a single device, however many wrote them. Raises FileNotFoundError if the run has no
    checkpoint, and ValueError if it has none of that step, if none has metrics to choose the best by, or if
    the checkpoint is damaged.
    """
    directory = Path(workdir) / _CHECKPOINTS
    with _manager(workdir, read_only=True, create=False, save_interval_steps=0) as manager:
        if manager.latest_step() is None:
            raise FileNotFoundError(f"{directory}: there is no checkpoint yet")
        wanted = manager.latest_step() if step is None else manager.best_step() if step == "best" else step
        if wanted is None:
            raise ValueError(f"{directory}: no checkpoint was evaluated, so there is no best one")
        shapes = _shapes(manager, wanted, ("weights",))
        return wanted, _restore(manager, wanted, shapes)["weights"]


def time_of_weights(workdir: str | Path, step: int) -> str:
    """When a checkpoint's weights or a model file were written, to tell them from others of the same step."""
    workdir = Path(workdir)
    weights = workdir if workdir.is_file() else workdir / _CHECKPOINTS / str(step) / "weights"
    return datetime.fromtimestamp(weights.stat().st_mtime, UTC).isoformat()


def is_untrained(workdir: str | Path) -> bool:
    """Whether the only checkpoint is step 0 (imported weights, not trained yet)."""
    if not (Path(workdir) / _CHECKPOINTS).is_dir():
        return False
    with _manager(workdir, read_only=True, create=False, save_interval_steps=0) as manager:
        return list(manager.all_steps()) == [0] and not _has_training(manager, 0)


class _HasShape(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_arrays_match(
    wanted: Mapping[str, _HasShape], found: Mapping[str, _HasShape], *, source: str
) -> None:
    """Checks that ``found`` has exactly the ``wanted`` arrays, by name and shape.

    Otherwise raises ValueError, prefixed with ``source``, that lists all arrays that are missing, unexpected
    or of another shape.
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
    lines = [_listed(f"{len(names)} {kind}: ", names) for kind, names in problems.items() if names]
    if lines:
        raise ValueError("\n  ".join([f"{source}: the arrays do not fit the model", *lines]))


def _listed(head: str, names: list[str]) -> str:
    """``head`` followed by the names, one per line and aligned."""
    return head + ("\n  " + " " * len(head)).join(names)


def _manager(workdir: str | Path, **options: Any) -> ocp.CheckpointManager:
    # One device writes each array. By default all devices that hold it slice it and write a part each: saving
    # 500 small arrays of 8 devices then kept training waiting for 2.7 s instead of 0.1 s, and once for 15 s.
    arrays = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
    )
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in _ITEMS:
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=arrays)
        registry.add(item, ocp.args.PyTreeSave, handler)
        registry.add(item, ocp.args.PyTreeRestore, handler)
    directory = Path(workdir).resolve() / _CHECKPOINTS
    check_steps(directory)
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(best_fn=_score, save_root_metadata=False, **options),
        handler_registry=registry,
    )


def _score(metrics: dict[str, float]) -> float:
    scores = [score for score in metrics.values() if isinstance(score, int | float)]
    mean = sum(scores) / len(scores) if scores else math.nan
    return -math.inf if math.isnan(mean) else mean


def _has_training(manager: ocp.CheckpointManager, step: int) -> bool:
    return (_directory(manager, step) / "training").is_dir()


def _directory(manager: ocp.CheckpointManager, step: int) -> Path:
    return Path(manager.directory) / str(step)


def _shapes(
    manager: ocp.CheckpointManager, step: int, items: tuple[str, ...]
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The shapes of the arrays in a checkpoint's items, placed on the first local device."""
    steps = manager.all_steps()
    if step not in steps:
        raise ValueError(
            f"{manager.directory}: there is no checkpoint of step {step}, only of {sorted(steps)}"
        )
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    try:
        stored = {item: check_files(_directory(manager, step) / item) for item in items}
        metadata = manager.item_metadata(step)
        if "weights" in items:  # those of training are compared with arrays in memory before they are read
            check_sizes(metadata["weights"].values(), stored=stored["weights"])
        return {
            item: {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
                for name, array in metadata[item].items()
            }
            for item in items
        }
    except Exception as error:  # orbax may raise anything for a truncated file
        raise _damaged(manager, step, error) from error


def _restore(
    manager: ocp.CheckpointManager, step: int, like: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Array]]:
    """The items in ``like``, each with its arrays in the order of ``like``."""
    templates = {
        item: {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()
        }
        for item, arrays in like.items()
    }
    arguments = {
        item: ocp.args.PyTreeRestore(
            template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
        )
        for item, template in templates.items()
    }
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**arguments))
        return {item: {name: restored[item][name] for name in names} for item, names in like.items()}
    except Exception as error:  # orbax and tensorstore may raise anything for a truncated file
        raise _damaged(manager, step, error) from error


def _damaged(manager: ocp.CheckpointManager, step: int, error: Exception) -> ValueError:
    directory = _directory(manager, step)
    others = [other for other in manager.all_steps() if other != step]
    advice = f"remove it to continue from step {max(others)}" if others else "it was the only one"
    reason = str(error) if isinstance(error, UnusableFilesError) else type(error).__name__
    return ValueError(f"{directory}: the checkpoint is damaged ({reason}); {advice}")


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree, keyed by their dotted paths, in the pytree's order."""
    leaves = jax.tree.leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the training state have the same dotted path")
    return flat
