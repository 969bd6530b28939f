"""Reads and writes the files that make a saved run self-describing.

    config.json       the settings (mrcnn_jax/config/fields.py)
    categories.json   the meaning of the labels

The arrays are saved next to them (mrcnn_jax/runs/checkpoint.py).
"""

import contextlib
import dataclasses
import zipfile
from pathlib import Path
from typing import Any

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import differences, from_dict, validate
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.runs.categories import (
    CATEGORIES_FILE,
    Categories,
    check_consistent,
    load_categories,
    save_categories,
)

_CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """The description of a run: everything about its model except the arrays."""

    config: Config
    categories: Categories


def is_run(workdir: str | Path) -> bool:
    """Whether ``workdir`` is the directory of a run."""
    return (Path(workdir) / _CONFIG_FILE).exists()


def write_run(
    workdir: str | Path, config: Config, categories: Categories, *, untrained: bool = False
) -> None:
    """Creates the run's directory ``workdir``, or checks that the run in it can be resumed, and updates it.

    On resume, ``config`` may differ in settings that do not affect the steps already taken: ``test``, where
    the data is, the validation set, how often the run reports, saves and evaluates, and ``train.steps``
    unless the schedule depends on it ("cosine" does), and ``train.accumulate`` unless the model has batch
    norms. The sigmas of ``categories`` may differ, too.
    ``untrained`` says that the run has weights but has not taken a step; then only the categories and the
    model, which give the weights their meaning, must be the same (see ``model_differences``). The directory
    then holds the new values. Raises ValueError if anything else differs, if ``categories`` is inconsistent,
    or if ``workdir`` has a ``categories.json`` without being the directory of a run.
    """
    workdir = Path(workdir)
    check_consistent(categories)
    if is_run(workdir):
        run = read_run(workdir)
        changes = model_differences(config, run.config) if untrained else differences(config, run.config)
        changes |= {
            f"categories.{field.name}": (here, in_run)
            for field in dataclasses.fields(Categories)
            if (here := getattr(categories, field.name)) != (in_run := getattr(run.categories, field.name))
        }
        problems = {name: values for name, values in changes.items() if not _may_change(name, config)}
        if problems:
            lines = (
                f"\n  {name}: {here!r} here, {there!r} in the run" for name, (here, there) in problems.items()
            )
            advice = "train in another --workdir, or use this run's settings to resume it"
            fixed = model_differences(config, run.config)
            if not any(name in fixed or name.startswith("categories.") for name in problems):
                advice += f"; {how_to_start_from_its_weights(workdir)}"
            raise ValueError(f"{workdir} holds a run with other settings:{''.join(lines)}\n{advice}")
    elif (workdir / CATEGORIES_FILE).exists():
        raise ValueError(
            f"{workdir / CATEGORIES_FILE} exists without {_CONFIG_FILE}: the directory is not that of a run, "
            "and nothing in it is overwritten; train in another --workdir, or remove the file"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    # The config is written last: it marks the directory as a run.
    save_categories(workdir / CATEGORIES_FILE, categories)
    write_json(workdir / _CONFIG_FILE, to_dict(config), exact=True)


def read_run(workdir: str | Path) -> Run:
    """The run that ``write_run`` wrote.

    Raises FileNotFoundError or NotADirectoryError if ``workdir`` is missing or not the directory of a run,
    and ValueError, naming the file, if a file is malformed or has an unknown field or an invalid value.
    """
    workdir = Path(workdir)
    if is_model_file(workdir):
        raise NotADirectoryError(
            f"{workdir}: is a file that mrcnn-jax export wrote, for predict and evaluate alone; give the "
            "directory of the run that it was made from"
        )
    if workdir.is_file():
        raise NotADirectoryError(
            f"{workdir}: is a file, not the directory of a run, nor a whole file of mrcnn-jax export; "
            "mrcnn-jax convert makes a run of a detector's weights, and a backbone's are given as "
            f"--config.model.backbone_weights={workdir}"
        )
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"{workdir}: there is no such directory; training or converting weights creates a run"
        )
    for file in (_CONFIG_FILE, CATEGORIES_FILE):
        if not (workdir / file).exists():
            raise FileNotFoundError(f"{workdir} is not the directory of a run: it has no {file}")
    return _read(workdir)


def is_model_file(path: str | Path) -> bool:
    """Whether ``path`` is a file that ``mrcnn-jax export`` wrote (mrcnn_jax/export/)."""
    if not Path(path).is_file():
        return False
    with contextlib.suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(path) as archive:
        return {"manifest.json", _CONFIG_FILE, CATEGORIES_FILE} <= set(archive.namelist())
    return False


def read_model(path: str | Path) -> Run:
    """The description of a run's directory, as from ``read_run``, or of a model file.

    A model file may come from a stranger. Raises ValueError, naming it, if it is damaged or malformed.
    """
    if not is_model_file(path):
        return read_run(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type for entry in archive.infolist()):  # which could fill the memory
                raise ValueError(f"{path}: its entries must be uncompressed")
            return _read(zipfile.Path(archive))
    except (KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is damaged: {error}") from error


def _read(directory: Path | zipfile.Path) -> Run:
    """The description in a directory, or in an archive."""
    values = read_json(directory / _CONFIG_FILE)
    try:
        config = from_dict(values)
        validate(config)
    except ValueError as error:
        raise ValueError(f"{directory / _CONFIG_FILE}: {error}") from error
    return Run(config, load_categories(directory / CATEGORIES_FILE))


def how_to_start_from_its_weights(workdir: str | Path) -> str:
    """The advice for a run that cannot be resumed as the user wants to: a new run with its weights."""
    return (
        "to train from its weights with other settings, make a new run: "
        f"mrcnn-jax convert --source=run --input={workdir} --config=FILE --workdir=NEW, and train with "
        f"--workdir=NEW (train --init={workdir} --workdir=NEW does both)"
    )


def how_to_train_longer(workdir: str | Path, config: Config) -> str:
    """The advice for a run that has taken all its steps: more, or a new run if its schedule ends."""
    if _may_change("train.steps", config):
        return f"raise --config.train.{'epochs' if config.train.epochs else 'steps'} to continue"
    return f"the schedule {config.train.schedule!r} ends there; {how_to_start_from_its_weights(workdir)}"


def model_differences(here: Config, run: Config) -> dict[str, tuple[Any, Any]]:
    """The differences, as from ``config.io.differences``, in the fields that saved weights depend on.

    These are the fields of the model except its compute dtype, the stages frozen or recomputed in training,
    and the file with the initial backbone weights.
    """
    return {
        name: values
        for name, values in differences(here, run).items()
        if name.startswith("model.") and SETTINGS[name].decides != "neither"
    }


def _may_change(name: str, config: Config) -> bool:
    if name in ("train.steps", "train.epochs"):
        return config.train.schedule == "step"
    if name == "train.accumulate":  # only the statistics of a trained batch norm depend on it
        model = config.model
        return "batch" not in (model.backbone_norm, model.fpn_norm, model.box_norm, model.mask_norm)
    if name.startswith("categories."):
        return name == "categories.sigmas"  # only evaluation uses them
    return SETTINGS[name].resumable
