"""Begins a run from the weights of another run or of a published model, for the data to train on."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.categories import KeypointRule, read_categories_file
from mrcnn_jax.data.labels import check_categories
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.weights.convert import Imported, import_weights
from mrcnn_jax.weights.zoo import workdir_of


def begin_run(weights: str | Path, config: Config, workdir: str | Path) -> Imported:
    """Creates the run ``workdir`` with weights for the categories of ``config.data``'s training set.

    ``weights`` is the directory of a run, or the name of a published model (docs/zoo.md), which is downloaded
    first. If its categories are those of the data, all of its layers are kept; otherwise the heads' last
    layers are re-initialised.

    Raises ValueError or OSError, and writes nothing, as ``workdir_of`` and ``import_weights`` do, and if
    ``weights`` is a file, or the training set are records, whose categories are not in COCO's format.
    """
    if Path(weights).is_file():
        raise ValueError(
            f"{weights}: is a file, not the directory of a run; a backbone's weights are given as "
            f"--config.model.backbone_weights={weights}, and a detector's become a run with mrcnn-jax convert"
        )
    if config.data.train_records:
        raise ValueError(
            f"to begin from {weights} with records, make the run with mrcnn-jax convert --source=run "
            "--new_categories=FILE, where FILE is the annotation file that the records were made from"
        )
    rule: KeypointRule = "strict" if config.model.keypoint else "skip"
    run, annotations = workdir_of(weights), Path(config.data.root) / config.data.train_annotations
    try:
        check_categories(
            read_categories_file(annotations, keypoint_rule=rule),
            read_run(run).categories,
            where=str(annotations),
        )
        new_categories = None
    except ValueError:
        new_categories = annotations
    return import_weights("run", run, config, workdir, new_categories=new_categories)
