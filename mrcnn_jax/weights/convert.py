"""Weights made elsewhere, or by another run, as a new run's directory: what it begins from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.data.categories import read_categories_file
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints, check_arrays_match, load_weights
from mrcnn_jax.runs.description import model_differences, read_run, write_run
from mrcnn_jax.types import Categories
from mrcnn_jax.weights import detectron2, torchvision
from mrcnn_jax.weights.files import read_arrays
from mrcnn_jax.weights.layouts import Layout


@dataclass(frozen=True)
class _System:
    """A system whose files of weights are understood."""

    read: Callable[..., dict[str, np.ndarray]]
    layouts: Callable[[Blueprint], Mapping[str, Layout]]
    categories: Categories  # COCO's, as its models without keypoints have them
    mark: str  # what names of the proposal network begin with here, and in no other system


_SYSTEMS = {
    "torchvision": _System(torchvision.from_torchvision, torchvision.layouts, COCO_BY_ID, "rpn."),
    "detectron2": _System(detectron2.from_detectron2, detectron2.layouts, COCO, "proposal_generator."),
}
SOURCES = (*_SYSTEMS, "run")


@dataclass(frozen=True)
class Imported:
    """What ``import_weights`` made."""

    categories: Categories
    new_layers: tuple[str, ...]  # drawn at random for new categories; all else is as it was
    size: int  # numbers in all arrays


def import_weights(
    source: str,
    path: str | Path,
    config: Config,
    workdir: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    categories: str | Path | None = None,
    new_categories: str | Path | None = None,
) -> Imported:
    """Makes ``workdir`` a run's directory with the weights of ``path`` as its checkpoint of step 0.

    Args:
        source: What ``path`` is: a file of weights (see ``files.read_arrays``) of "torchvision" or
            "detectron2", or the directory of another "run".
        path: The file or directory.
        config: Settings of the new run; its model must be that of the weights.
        workdir: A directory that is new or empty.
        step: Of another run, which checkpoint; as ``load_weights`` takes it.
        categories: File in COCO's format whose categories a file of weights was trained on. Without it they
            are COCO's.
        new_categories: Such a file with other categories to train on: the last layers of the heads are drawn
            at random for them, from ``config.train.seed``, and everything else is kept. The last layer of the
            keypoint head is kept if the number of keypoints stays the same.

    Raises ValueError or OSError, and writes nothing, if a file cannot be read, if weights, config and
    categories do not fit each other (everything that does not is listed), or if ``workdir`` holds anything.
    """
    workdir = Path(workdir)
    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise ValueError(f"{workdir} is there already; weights are put into a directory that is new or empty")
    if categories and (new_categories or source == "run"):
        raise ValueError(
            "--categories says what a file was trained on: not with --new_categories nor --source=run"
        )
    if step is not None and source != "run":
        raise ValueError("--step is that of another run: it goes with --source=run only")

    given = new_categories or categories
    named = read_categories_file(Path(given)) if given else None  # before the weights, which take longer
    if source == "run":
        blueprint, weights, meaning = _read_run(path, step, config)
    else:
        blueprint, weights = _read_file(_SYSTEMS[source], Path(path), config)
        meaning = named or _categories_of_coco(_SYSTEMS[source], config)
        if not new_categories:
            _check_categories(meaning, blueprint, path=Path(path), source_of_categories=str(given or "COCO"))

    new_layers: tuple[str, ...] = ()
    if new_categories and named:
        weights, new_layers = _with_new_categories(weights, blueprint, named, config, str(given))
        meaning = named
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(0, weights)
    write_run(workdir, config, meaning)  # last: with it, the directory is a run's
    return Imported(meaning, new_layers, sum(x.size for x in weights.values()))


def _read_run(
    path: str | Path, step: int | Literal["best"] | None, config: Config
) -> tuple[Blueprint, Arrays, Categories]:
    run = read_run(path)
    if changes := model_differences(config, run.config):
        lines = (f"\n  {name}: {here!r} here, {there!r} there" for name, (here, there) in changes.items())
        raise ValueError(f"{path} is a run of another model:" + "".join(lines))
    step, weights = load_weights(path, step)
    blueprint = _blueprint(config, run.categories)
    check_arrays_match(blueprint.shapes(), weights, source=f"{path}, step {step}")
    return blueprint, weights, run.categories


def _read_file(system: _System, path: Path, config: Config) -> tuple[Blueprint, Arrays]:
    """The model of as many classes and keypoints as the file has, and its arrays by our names."""
    found = read_arrays(path)
    places = system.layouts(make_blueprint(config.model, num_classes=1, num_keypoints=1))

    def rows(name: str) -> int:
        array = found.get(places[name].name) if name in places else None
        return len(array) if array is not None and array.ndim else 0

    # Where the file does not tell, it lacks an array, and is found not to fit COCO's numbers.
    coco = _categories_of_coco(system, config)
    blueprint = make_blueprint(
        config.model,
        num_classes=max(rows("box_head.cls_score.bias") - 1, 0) or len(coco),
        num_keypoints=rows("keypoint_head.kps_score_lowres.bias") or len(coco.keypoint_names),
    )
    try:
        weights = system.read(found, blueprint, source=str(path))
    except ValueError as error:
        raise ValueError(f"{error}{_hint(system, found)}") from error
    return blueprint, {name: jnp.asarray(array) for name, array in weights.items()}


def _hint(system: _System, found: Mapping[str, np.ndarray]) -> str:
    """What is likely wrong with a file of none of the system's detectors."""
    if any(name.startswith(system.mark) for name in found):
        return ""
    for source, other in _SYSTEMS.items():
        if any(name.startswith(other.mark) for name in found):
            return f"\nthe names are those of --source={source}"
    return "\nit is no detector; a backbone is given to training as --config.model.backbone_weights=FILE"


def _categories_of_coco(system: _System, config: Config) -> Categories:
    return COCO_PERSON if config.model.keypoint else system.categories


def _check_categories(
    categories: Categories, blueprint: Blueprint, *, path: Path, source_of_categories: str
) -> None:
    """Raises ValueError unless categories and keypoints are as many as the file's."""
    numbers = [("classes", "categories", blueprint.num_classes, len(categories))]
    if blueprint.config.keypoint:
        numbers.append(("keypoints", "keypoints", blueprint.num_keypoints, len(categories.keypoint_names)))
    problems = [
        f"{path} has {there} {theirs}, {source_of_categories} {here} {ours}"
        for theirs, ours, there, here in numbers
        if there != here
    ]
    if problems:
        raise ValueError(
            "\n".join(problems)
            + "\nname the categories that it was trained on with --categories=FILE, or others to train it on "
            "with --new_categories=FILE (any COCO-format JSON with 'categories')"
        )


def _with_new_categories(
    weights: Arrays, blueprint: Blueprint, categories: Categories, config: Config, categories_file: str
) -> tuple[Arrays, tuple[str, ...]]:
    """The weights with last layers for other categories, and these layers' names."""
    model = config.model
    if model.keypoint and not categories.keypoint_names:
        raise ValueError(
            f"{categories_file}: no category has keypoints, but the model finds some (model.keypoint is True)"
        )
    layers = ["box_head.cls_score", "box_head.bbox_pred"]
    if model.mask:
        layers.append("mask_head.mask_fcn_logits")
    if model.keypoint and len(categories.keypoint_names) != blueprint.num_keypoints:
        layers.append("keypoint_head.kps_score_lowres")
    drawn = _blueprint(config, categories).draw(jax.random.key(config.train.seed))
    last = {name: array for name, array in drawn.items() if name.rpartition(".")[0] in layers}
    return weights | last, tuple(layers)


def _blueprint(config: Config, categories: Categories) -> Blueprint:
    return make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )
