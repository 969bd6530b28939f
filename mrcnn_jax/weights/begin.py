"""Begins a run from the weights of another run, for the data to train on."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.weights.convert import Imported, import_weights


def begin_run(earlier: str | Path, config: Config, workdir: str | Path, categories: Categories) -> Imported:
    """Creates the run ``workdir`` with the weights of the run ``earlier``, for ``categories``.

    If its categories are the same, all of its layers are kept; otherwise the outputs of the heads' last
    layers are re-initialised, except for categories of the same name. A keypoint head that the run lacks is
    made for the keypoints of ``categories``. Raises ValueError or OSError, and
    writes nothing, as ``import_weights`` does.
    """
    known = read_run(earlier).categories
    new_categories = None
    try:
        check_categories(categories, known, where="the data")
    except ValueError:
        new_categories = categories
    if config.model.keypoint and not known.keypoint_names:
        new_categories = categories
    return import_weights("run", earlier, config, workdir, new_categories=new_categories)
