"""Begins a run from the weights of another run or of a published model, for the data to train on."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.categories import KeypointRule, read_categories_file
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.types import Categories
from mrcnn_jax.weights.convert import Imported, import_weights
from mrcnn_jax.weights.zoo import workdir_of


def begin_run(
    weights: str | Path, config: Config, workdir: str | Path, categories: Categories | None = None
) -> Imported:
    """Creates the run ``workdir`` with weights for ``categories``, by default those of the training set.

    ``weights`` is the directory of a run, or the name of a published model (docs/zoo.md), which is downloaded
    first. If its categories are the same, all of its layers are kept; otherwise the heads' last layers are
    re-initialised.

    Raises ValueError or OSError, and writes nothing, as ``workdir_of`` and ``import_weights`` do, and if
    neither ``categories`` is given nor the training set of ``config.data`` a file in COCO's format: records
    are none.
    """
    given: Categories | Path = categories or _annotations(weights, config)
    if isinstance(given, Path):
        rule: KeypointRule = "strict" if config.model.keypoint else "skip"
        categories = read_categories_file(given, keypoint_rule=rule)
    else:
        categories = given
    run = workdir_of(weights)
    try:
        check_categories(categories, read_run(run).categories, where="the data")
        new_categories = None
    except ValueError:
        new_categories = given
    return import_weights("run", run, config, workdir, new_categories=new_categories)


def _annotations(weights: str | Path, config: Config) -> Path:
    if config.data.train_records:
        raise ValueError(
            f"to begin from {weights} with records, make the run with mrcnn-jax convert --source=run "
            "--new_categories=FILE, where FILE is the annotation file that the records were made from"
        )
    return Path(config.data.root) / config.data.train_annotations
