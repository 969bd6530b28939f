"""Where a run's curves, settings and pictures are written: TensorBoard, Weights & Biases, MLflow."""

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from mrcnn_jax.json_files import read_json, write_json

_PROJECT = "mrcnn_jax"  # of W&B, and MLflow's experiment, unless the environment names another
_IDS = "tracking.json"  # in a run's directory: what W&B and MLflow call the run, so that it is resumed there


@runtime_checkable
class Writer(Protocol):
    """One place where a run is written. Names are such as "train/loss" and "validation/image_7"."""

    def write_settings(
        self, step: int, fields: dict[str, Any], chosen: dict[str, Any], metrics: list[str]
    ) -> None:
        """All settings by dotted name, those that a user chose, and the metrics by which to compare runs."""

    def write_scalars(self, step: int, values: dict[str, float]) -> None: ...

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """``pixels``: uint8 ``[H W 3]``."""

    def close(self, *, failed: bool) -> None: ...


class TensorBoardWriter:
    """Writes ``workdir/tensorboard``, and drops what is there about steps after ``after_step``."""

    def __init__(self, workdir: Path, after_step: int) -> None:
        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step + 1)

    def write_settings(
        self, step: int, fields: dict[str, Any], chosen: dict[str, Any], metrics: list[str]
    ) -> None:
        lines = (f"    {name}: {value!r}" for name, value in fields.items())  # Markdown's block of code
        self._writer.add_text("config", "\n".join(lines), step)
        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in chosen.items()
        }
        experiment, start, _ = hparams(values, dict.fromkeys(metrics))
        for summary in (experiment, start):
            self._writer.file_writer.add_summary(summary, step)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        del failed
        self._writer.close()


class WandbWriter:
    """Writes to Weights & Biases, whose environment variables apply: WANDB_PROJECT, WANDB_MODE=offline, ...

    A resumed run goes on there. W&B takes no step twice, and keeps the first: an interrupted and resumed run
    takes steps again with equal results.
    """

    def __init__(self, workdir: Path) -> None:
        self._wandb = importlib.import_module("wandb")
        ids = _read_ids(workdir)
        self._run = self._wandb.init(
            project=_of_environment("WANDB_PROJECT"),
            name=workdir.name,
            dir=str(workdir),
            id=ids.get("wandb"),
            resume="allow",
        )
        write_json(workdir / _IDS, ids | {"wandb": self._run.id})

    def write_settings(
        self, step: int, fields: dict[str, Any], chosen: dict[str, Any], metrics: list[str]
    ) -> None:
        del step, chosen, metrics
        self._run.config.update(fields, allow_val_change=True)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(Image.fromarray(pixels))}, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MlflowWriter:
    """Writes to MLflow, whose environment variables apply: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...

    A resumed run goes on there. The settings that a user chose are parameters, which MLflow never changes;
    all of them, as of each start, are the artifact ``config/STEP.json``.
    """

    def __init__(self, workdir: Path) -> None:
        mlflow = importlib.import_module("mlflow")
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        ids = _read_ids(workdir)
        if "mlflow" in ids:
            self._run = ids["mlflow"]
            self._client.update_run(self._run, status="RUNNING")
            self._is_new = False
        else:
            name = _of_environment("MLFLOW_EXPERIMENT_NAME")
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            self._run = self._client.create_run(number, run_name=workdir.name).info.run_id
            self._is_new = True
            write_json(workdir / _IDS, ids | {"mlflow": self._run})

    def write_settings(
        self, step: int, fields: dict[str, Any], chosen: dict[str, Any], metrics: list[str]
    ) -> None:
        del metrics
        self._client.log_dict(self._run, fields, f"config/{step}.json")
        if self._is_new:
            parameters = [self._entities.Param(name, str(value)) for name, value in chosen.items()]
            self._client.log_batch(self._run, params=parameters)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_allowed(name), x, now, step) for name, x in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._client.log_image(self._run, Image.fromarray(pixels), key=_allowed(name), step=step)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


_SERVICES: dict[str, Callable[[Path], Writer]] = {"wandb": WandbWriter, "mlflow": MlflowWriter}
SERVICES = tuple(_SERVICES)


def check_services(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is not in ``SERVICES``, or whose package is not installed."""
    for name in names:
        if name not in SERVICES:
            raise ValueError(f"log_to={name}: must be one of {', '.join(SERVICES)}")
        if find_spec(name) is None:
            raise ValueError(
                f"log_to={name} needs the package {name}: pip install {name} (the extra [{name}])"
            )


def open_service(name: str, workdir: Path) -> Writer:
    """A writer that goes on where the run in ``workdir`` was written to ``name``, of ``SERVICES``, before.

    Once it is open its errors are printed and go no further: no training ends because a server is away.
    """
    return _Lenient(name, _SERVICES[name](workdir))


class _Lenient:
    def __init__(self, name: str, writer: Writer) -> None:
        self._name = name
        self._writer = writer

    def write_settings(
        self, step: int, fields: dict[str, Any], chosen: dict[str, Any], metrics: list[str]
    ) -> None:
        with self._reporting(f"the settings of step {step}"):
            self._writer.write_settings(step, fields, chosen, metrics)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        with self._reporting(f"the values of step {step}"):
            self._writer.write_scalars(step, values)

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        with self._reporting(f"{name} of step {step}"):
            self._writer.write_picture(step, name, pixels)

    def close(self, *, failed: bool) -> None:
        with self._reporting("the end"):
            self._writer.close(failed=failed)

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a service's package raises
            print(f"{self._name}: not written: {what}: {error}", flush=True)


def _of_environment(variable: str) -> str:
    return os.environ.get(variable) or _PROJECT


def _read_ids(workdir: Path) -> dict[str, str]:
    path = workdir / _IDS
    if not path.exists():
        return {}
    ids = read_json(path)
    if not (isinstance(ids, dict) and all(isinstance(value, str) for value in ids.values())):
        raise ValueError(f"{path}: must be an object of texts")
    return ids


def _allowed(name: str) -> str:
    """``name`` in the characters that MLflow has in names."""
    return re.sub(r"[^\w\-. /]", "_", name)
