"""What a run's directory says about its model, so that a saved run describes itself.

    config.json       the settings (mrcnn_jax/config/fields.py)
    categories.json   what the labels mean

The arrays lie beside them (mrcnn_jax/runs/checkpoint.py).
"""

import dataclasses
from pathlib import Path
from typing import Any

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import differences, from_dict, validate
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.runs.categories import CATEGORIES_FILE, check_agreement, load_categories, save_categories
from mrcnn_jax.types import Categories

_CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's directory says about its model, apart from the arrays."""

    config: Config
    categories: Categories


def is_run(workdir: str | Path) -> bool:
    """Whether the directory is a run's."""
    return (Path(workdir) / _CONFIG_FILE).exists()


def write_run(
    workdir: str | Path, config: Config, categories: Categories, *, untrained: bool = False
) -> None:
    """Makes ``workdir`` a run's directory, or checks that it is the same run's, about to be continued.

    Continued, ``config`` may differ in what changes none of the steps taken: ``test``, where the data is,
    the validation set, how often the run reports, saves and evaluates, and ``train.steps`` unless the
    schedule depends on it ("cosine" does); and so may the sigmas of ``categories``. ``untrained`` says that
    the run holds weights but has taken no step: then only what gives the weights their meaning must be the
    same, the categories and the model (see ``model_differences``). The directory then holds the new values.
    Raises ValueError if anything else differs, if ``categories`` contradict themselves, or if
    ``workdir`` has a ``categories.json`` although it is no run's directory.
    """
    workdir = Path(workdir)
    check_agreement(categories)
    if is_run(workdir):
        run = read_run(workdir)
        changes = model_differences(config, run.config) if untrained else differences(config, run.config)
        changes |= {
            f"categories.{field.name}": (here, in_run)
            for field in dataclasses.fields(Categories)
            if (here := getattr(categories, field.name)) != (in_run := getattr(run.categories, field.name))
        }
        problems = [
            f"\n  {name}: {here!r} here, {in_run!r} in the run"
            for name, (here, in_run) in changes.items()
            if not _may_change(name, config)
        ]
        if problems:
            raise ValueError(
                f"{workdir} holds a run with other settings:"
                + "".join(problems)
                + "\ntrain in another --workdir, or give this run's settings to continue it"
            )
    elif (workdir / CATEGORIES_FILE).exists():
        raise ValueError(
            f"{workdir / CATEGORIES_FILE} must not be there without {_CONFIG_FILE}: the directory is no "
            "run's, and nothing in it is replaced; train in another --workdir, or remove the file"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    # The config comes last: with it, the directory is a run.
    save_categories(workdir / CATEGORIES_FILE, categories)
    write_json(workdir / _CONFIG_FILE, to_dict(config))


def read_run(workdir: str | Path) -> Run:
    """What ``write_run`` wrote.

    Raises FileNotFoundError if ``workdir`` is missing or not a run's directory, and ValueError, naming the
    file, if one is malformed or holds a field or value that there may not be.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"{workdir}: there is no such directory; a run is made by training, or by converting weights"
        )
    for file in (_CONFIG_FILE, CATEGORIES_FILE):
        if not (workdir / file).exists():
            raise FileNotFoundError(f"{workdir} is not a run's directory: it has no {file}")
    values = read_json(workdir / _CONFIG_FILE)
    try:
        config = from_dict(values)
        validate(config)
    except ValueError as error:
        raise ValueError(f"{workdir / _CONFIG_FILE}: {error}") from error
    return Run(config, load_categories(workdir / CATEGORIES_FILE))


def model_differences(here: Config, run: Config) -> dict[str, tuple[Any, Any]]:
    """As ``config.io.differences``, of the fields that weights depend on.

    That is the model, apart from its type of computation, the stages that are frozen or recomputed in
    training, and the file of the backbone that a new model begins with.
    """
    return {
        name: values
        for name, values in differences(here, run).items()
        if name.startswith("model.") and SETTINGS[name].decides != "neither"
    }


def _may_change(name: str, config: Config) -> bool:
    if name == "train.steps":
        return config.train.schedule == "step"
    if name.startswith("categories."):
        return name == "categories.sigmas"  # only evaluation uses them
    return SETTINGS[name].resumable
