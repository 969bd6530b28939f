"""Starts a new run from the weights of torchvision, Detectron2, MMDetection or another run."""

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.data.categories import KeypointRule, read_categories_file
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.data.lvis_categories import LVIS
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights import detectron2, mmdetection, torchvision
from mrcnn_jax.weights.files import find_arrays
from mrcnn_jax.weights.layouts import Layout
from mrcnn_jax.weights.mismatches import architecture, differing_fields, examples, other_project
from mrcnn_jax.weights.new_categories import layers_per_category, shared_names, with_shared_outputs
from mrcnn_jax.weights.parts import blueprint_of, take_run
from mrcnn_jax.weights.zoo_models import check_not_a_model, models_with


@dataclass(frozen=True)
class _System:
    """A system whose weights files can be read."""

    read: Callable[..., dict[str, np.ndarray]]
    layouts: Callable[[Blueprint], Mapping[str, Layout]]
    categories: Categories  # COCO's categories, in the order of its models without keypoints
    marks: tuple[str, ...]  # beginnings of names that no other system has, of the RPN and of the box head


_SYSTEMS = {
    "torchvision": _System(
        torchvision.from_torchvision, torchvision.layouts, COCO_BY_ID, ("rpn.", "roi_heads.box_head.fc6.")
    ),
    "detectron2": _System(
        detectron2.from_detectron2,
        detectron2.layouts,
        COCO,
        ("proposal_generator.", "roi_heads.box_head.fc1."),
    ),
    "mmdetection": _System(
        mmdetection.from_mmdetection,
        mmdetection.layouts,
        COCO,
        ("rpn_head.rpn_conv.", "roi_head.bbox_head."),
    ),
}
SOURCES = (*_SYSTEMS, "run")


@dataclass(frozen=True)
class Imported:
    """The result of ``import_weights``."""

    categories: Categories
    # Re-initialised, as the source lacks them, or for new categories but for the outputs for ``kept_names``.
    new_layers: tuple[str, ...]
    kept_names: tuple[str, ...]  # of new categories: those that the weights had already, by name
    left_out: tuple[str, ...]  # parts of the source that the new model lacks
    size: int  # total number of weights
    place: str  # of the weights in a file that holds more: keys and prefix, e.g. "state_dict.module"

    def kept_and_new_names(self) -> str:
        """A sentence about the categories whose outputs were kept and those that are new; "" if none was."""
        if not self.kept_names:
            return ""
        new = [name for name in self.categories.names if name not in self.kept_names]
        return (
            f"kept the outputs for {len(self.kept_names)} of {len(self.categories)} categories, by name: "
            f"{', '.join(self.kept_names)}; new: {', '.join(new) or 'none'}"
        )


def import_weights(
    source: str,
    path: str | Path,
    config: Config,
    workdir: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    key: str | None = None,
    categories: str | Path | None = None,
    new_categories: str | Path | Categories | None = None,
    join: str | Path | None = None,
) -> Imported:
    """Creates a run in ``workdir`` whose checkpoint of step 0 holds the weights of ``path``.

    Args:
        source: The kind of ``path``: a weights file (see ``files.find_arrays``) of "torchvision",
            "detectron2" or "mmdetection", or the directory of another "run".
        path: The file or directory.
        config: Settings of the new run; its model must match the weights. Of another run's model, it may lack
            the RPN or heads, and those that the other lacks are initialised with ``config.train.seed``.
        workdir: A directory that is new or empty.
        step: The checkpoint of another run to read; see ``load_weights``.
        key: Which weights of a file to take, if several fit, e.g. "ema"; see ``state_dicts.choose``.
        categories: COCO-format file with the categories that a weights file was trained on. None: LVIS v1's
            if there are 1203, else COCO's.
        new_categories: Other categories to train on, or a COCO-format file with them. In the last layers of
            the heads, the outputs for categories of the same name are kept (paper, appendix A), and those for
            the background along with them; the others are re-initialised with ``config.train.seed``. All
            other layers are kept, those of class-agnostic boxes and masks among them. The last layer of the
            keypoint head is kept if the number of keypoints stays the same.
        join: A second run, with the RPN or the heads that the first lacks; what both have must be equal.

    Raises ValueError or OSError, and writes nothing, if a file cannot be read, if weights, config and
    categories do not match (the message says in what), or if ``workdir`` is not empty or a published model.
    """
    workdir = Path(workdir)
    check_not_a_model(workdir)
    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise ValueError(f"{workdir} already exists; the directory of the new run must be new or empty")
    if categories and source == "run":
        raise ValueError(
            "--categories names what a weights file was trained on; it cannot be combined with --source=run"
        )
    if step is not None and source != "run":
        raise ValueError("--step selects a checkpoint of another run; it needs --source=run")
    if key is not None and source == "run":
        raise ValueError("--key selects weights in a file; it cannot be combined with --source=run")

    if join is not None and (source != "run" or new_categories):
        raise ValueError(
            "--join completes a run by another one's RPN or heads; it needs --source=run and cannot be "
            "combined with --new_categories"
        )

    rule: KeypointRule = "strict" if config.model.keypoint else "skip"
    # The files of categories first, as weights take longer.
    given = read_categories_file(Path(categories), keypoint_rule=rule) if categories else None
    new = new_categories or None
    if isinstance(new, str | Path):
        new = read_categories_file(Path(new), keypoint_rule=rule)
    place = ""
    new_layers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    if source == "run":
        taken = take_run(path, step, config, join=join, new_categories=new)
        blueprint, weights, known = taken.blueprint, taken.weights, taken.categories
        new_layers, left_out = taken.new_modules, taken.left_out
    else:
        blueprint, weights, place = _read_file(source, Path(path), config, key)
        is_lvis = blueprint.num_classes == len(LVIS) and not config.model.keypoint
        known = given or (LVIS if is_lvis else _coco_categories(_SYSTEMS[source], config))
        if problems := _other_numbers(known, blueprint, path=path, where=str(categories or "COCO")):
            if given or new is None:
                raise ValueError(problems)
            known = Categories((), ())  # its names are unknown
    kept_names: tuple[str, ...] = ()
    if new is not None:
        where = "the data" if isinstance(new_categories, Categories) else str(new_categories)
        weights, last = _with_new_categories(weights, blueprint, known, new, config, where)
        new_layers += tuple(name for name in last if name.partition(".")[0] not in new_layers)
        kept_names = shared_names(known, new)
    run_categories = known if new is None else new
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(0, weights)
    write_run(workdir, config, run_categories)  # last, because it makes the directory a valid run
    size = sum(x.size for x in weights.values())
    return Imported(run_categories, new_layers, kept_names, left_out, size, place)


def _read_file(source: str, path: Path, config: Config, key: str | None) -> tuple[Blueprint, Arrays, str]:
    """The model with the file's numbers of classes and keypoints, its arrays by our names, their place."""
    system = _SYSTEMS[source]
    layouts = system.layouts(make_blueprint(config.model, num_classes=1, num_keypoints=1))
    found, place = find_arrays(path, {layout.name for layout in layouts.values()}, key=key)

    def rows(name: str) -> int:
        array = found.get(layouts[name].name) if name in layouts else None
        return len(array) if array is not None and array.ndim else 0

    # If the array that tells a number is missing, COCO's number is assumed and the mismatch reported below.
    coco = _coco_categories(system, config)
    blueprint = make_blueprint(
        config.model,
        num_classes=max(rows("box_head.cls_score.bias") - 1, 0) or len(coco),
        num_keypoints=rows("keypoint_head.kps_score_lowres.bias") or len(coco.keypoint_names),
    )
    try:
        weights = system.read(found, blueprint, source=str(path))
    except ValueError as error:
        raise ValueError(_explained(str(error), source, found, path, config)) from error
    return blueprint, {name: jnp.asarray(array) for name, array in weights.items()}, place


def _explained(error: str, source: str, found: Mapping[str, np.ndarray], path: Path, config: Config) -> str:
    """The message for a file that does not fit: the mismatches, or why there are so many, and a remedy."""
    if project := other_project(found):
        advice = (
            "convert reads only torchvision's, Detectron2's and MMDetection's own Mask, Keypoint, Faster and "
            "Cascade R-CNN on ResNets"
        )
        if project.startswith(("MMDetection's other detectors", "MMDetection's other heads")):
            advice += f"; to use the backbone alone: --config.model.backbone_weights={path}"
        return f"{path}: has the names of {project}\n{advice}"
    if not all(array.size for array in found.values()):
        return f"{error}\nsome arrays are empty, as in a DeepSpeed ZeRO-3 checkpoint: run its zero_to_fp32.py"
    if (system := _system_of(found)) is None:
        return (
            f"{path}: is not a detector of torchvision, Detectron2 or MMDetection, by its names: "
            f"{examples(found)}\n"
            "to train from a backbone, use --config.model.backbone_weights=FILE"
        )
    if system != source:
        return f"{path}: its names are not those of --source={source}\nthe names match --source={system}"
    return error + _architecture_hint(source, found, config)


def _system_of(names: Collection[str]) -> str | None:
    """The system whose detectors have such names, with or without a prefix."""
    for source, system in _SYSTEMS.items():
        if any(f".{mark}" in f".{name}" for name in names for mark in system.marks):
            return source
    return None


def _architecture_hint(source: str, found: Mapping[str, np.ndarray], config: Config) -> str:
    """Lines that say in what the model in the file differs from the config's, and which settings fit it."""
    theirs = architecture(found)
    differing, lines = differing_fields(theirs, config.model)
    if not differing:
        return ""
    if models := models_with(source, theirs):
        settings = "\n  or ".join(model.arguments for model in models[:3])
    else:
        flags = [f"--config.model.{name}={value}" for name, value in differing.items()]
        if differing.get("box_cascade"):
            flags.append("--config.train.cascade_positive_ious=(0.6, 0.7)")
        settings = " ".join(map(shlex.quote, flags))
    return f"{lines}\nto fit the file, use {settings}"


def _coco_categories(system: _System, config: Config) -> Categories:
    return COCO_PERSON if config.model.keypoint else system.categories


def _other_numbers(categories: Categories, blueprint: Blueprint, *, path: str | Path, where: str) -> str:
    """What is wrong if the numbers of categories and keypoints in ``where`` are not the file's; else ""."""
    if not blueprint.config.box:
        return ""  # an RPN finds objects of any category
    numbers = [("classes", "categories", blueprint.num_classes, len(categories))]
    if blueprint.config.keypoint:
        numbers.append(("keypoints", "keypoints", blueprint.num_keypoints, len(categories.keypoint_names)))
    problems = [
        f"{path} has {theirs} {their_kind}, but {where} has {ours} {our_kind}\n"
        for their_kind, our_kind, theirs, ours in numbers
        if theirs != ours
    ]
    if not problems:
        return ""
    return (
        "".join(problems)
        + "give the categories that it was trained on with --categories=FILE, or new ones to train it "
        "on with --new_categories=FILE (any COCO-format JSON with 'categories')"
    )


def _with_new_categories(
    weights: Arrays,
    blueprint: Blueprint,
    known: Categories,
    new: Categories,
    config: Config,
    where: str,
) -> tuple[Arrays, tuple[str, ...]]:
    """The weights for ``new`` categories, and the names of the layers with re-initialised outputs.

    ``known`` are the weights' own categories, none if their names are unknown.
    """
    model = config.model
    if model.keypoint and not new.keypoint_names:
        raise ValueError(f"{where}: no category has keypoints, but model.keypoint is True")
    drawn = blueprint_of(config, new).draw(jax.random.key(config.train.seed))
    layers = list(layers_per_category(model))
    last = {name: array for name, array in drawn.items() if name.rpartition(".")[0] in layers}
    if shared := shared_names(known, new):
        last = with_shared_outputs(last, weights, model=model, known=known, new=new)
        if len(shared) == len(new):
            layers = []
    if model.keypoint and len(new.keypoint_names) != blueprint.num_keypoints:
        layers.append("keypoint_head.kps_score_lowres")
        last |= {name: array for name, array in drawn.items() if name.startswith(f"{layers[-1]}.")}
    return weights | last, tuple(layers)
