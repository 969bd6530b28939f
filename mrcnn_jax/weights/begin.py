"""Begins a run from the weights of another run or of a published model, for the data to train on."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.weights.convert import Imported, import_weights
from mrcnn_jax.weights.zoo import workdir_of


def begin_run(weights: str | Path, config: Config, workdir: str | Path, categories: Categories) -> Imported:
    """Creates the run ``workdir`` with weights for ``categories``.

    ``weights`` is the directory of a run, or the name of a published model (docs/zoo.md), which is downloaded
    first. If its categories are the same, all of its layers are kept; otherwise the heads' last layers are
    re-initialised.

    Raises ValueError or OSError, and writes nothing, as ``workdir_of`` and ``import_weights`` do.
    """
    run = workdir_of(weights)
    try:
        check_categories(categories, read_run(run).categories, where="the data")
        new_categories = None
    except ValueError:
        new_categories = categories
    return import_weights("run", run, config, workdir, new_categories=new_categories)
