"""A run's weights for a model that has other parts: RPN, box head, mask head and keypoint head."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import check_arrays_match, load_weights
from mrcnn_jax.runs.description import Run, model_differences, read_run
from mrcnn_jax.weights.channels import can_convert, convert_stem


@dataclass(frozen=True)
class Part:
    """A part, which the field ``model.<name>`` says whether a model has."""

    name: str
    modules: tuple[str, ...]  # first words of its arrays' names
    fields: tuple[str, ...]  # beginnings of the fields that only it reads


PARTS = (
    Part("rpn", ("rpn",), ("rpn_", "anchor_")),
    Part("box", ("box_head", "cascade_heads", "res5"), ("box_", "roi_")),
    Part("mask", ("mask_head", "cascade_mask_heads"), ("mask_",)),
    Part("keypoint", ("keypoint_head",), ("keypoint_",)),
)


@dataclass(frozen=True)
class Taken:
    """The weights that ``take_run`` returns."""

    blueprint: Blueprint
    weights: Arrays
    categories: Categories
    new_modules: tuple[str, ...]  # initialised, as the run lacks them
    left_out: tuple[str, ...]  # modules of the run that the new model lacks


def take_run(
    path: str | Path,
    step: int | Literal["best"] | None,
    config: Config,
    *,
    join: str | Path | None = None,
    new_categories: Categories | None = None,
) -> Taken:
    """The weights of a run for the model of ``config``, which may have other parts.

    Parts that the run lacks are those of the run ``join``; without it they are initialised with
    ``config.train.seed``, a keypoint head for the keypoints of ``new_categories``. The categories are those
    of the run whose box head is taken.

    Raises ValueError if the models differ in what they have in common, if the two runs' arrays do, if
    ``join`` lacks a part, or if nothing says which keypoints there are; and the errors of ``read_run`` and
    ``load_weights``.
    """
    run = read_run(path)
    weights = _load(path, step, config, run)
    missing = [part for part in PARTS if has(config, part) and not has(run.config, part)]
    categories, completed = run.categories, {}
    if join is not None:
        other = read_run(join)
        others = _load(join, None, config, other)
        if absent := [f"model.{part.name}" for part in missing if not has(other.config, part)]:
            raise ValueError(f"{join} lacks what {path} lacks, too: {', '.join(absent)}")
        _check_equal(weights, others, sources=(str(path), str(join)))
        completed = _of_parts(others, missing)
        if any(part.name == "box" for part in missing):
            categories = other.categories
        missing = []
    keypoints = categories.keypoint_names
    if new_categories is not None and any(part.name == "keypoint" for part in missing):
        keypoints = new_categories.keypoint_names
    if config.model.keypoint and not keypoints:
        raise ValueError(
            f"{path} has no keypoints, and model.keypoint is True; --new_categories names a file with the "
            "categories and keypoints to train on"
        )
    blueprint = make_blueprint(config.model, num_classes=len(categories), num_keypoints=len(keypoints))
    if missing:
        completed = _of_parts(blueprint.draw(jax.random.key(config.train.seed)), missing)
    extra = [part for part in PARTS if has(run.config, part) and not has(config, part)]
    unused = _of_parts(weights, extra)
    kept = {name: array for name, array in weights.items() if name not in unused}
    arrays = kept | completed
    check_arrays_match(blueprint.shapes(), arrays, source=str(path))
    return Taken(
        blueprint,
        {name: arrays[name] for name in blueprint.shapes()},
        categories,
        () if join else _modules(completed),
        _modules(unused),
    )


def blueprint_of(config: Config, categories: Categories) -> Blueprint:
    """The structure of the config's model for these categories."""
    return make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )


def has(config: Config, part: Part) -> bool:
    """Whether the config's model has the part."""
    return bool(getattr(config.model, part.name))


def _load(path: str | Path, step: int | Literal["best"] | None, config: Config, run: Run) -> Arrays:
    """A run's weights; raises ValueError unless its model is the config's in the parts that both have."""
    absent = [part for part in PARTS if not (has(config, part) and has(run.config, part))]
    beginnings = tuple(f"model.{start}" for part in absent for start in part.fields)
    ignored = {f"model.{part.name}" for part in PARTS}
    channels, known = len(config.model.pixel_mean), len(run.config.model.pixel_mean)
    if can_convert(known, channels) and _other_pixels(config, run.config):
        ignored |= {f"model.{name}" for name in ("pixel_mean", "pixel_std", "pixel_type")}
    lines = [
        f"\n  {name}: {ours!r} in the config, {theirs!r} in the run"
        for name, (ours, theirs) in model_differences(config, run.config).items()
        if name not in ignored and not name.startswith(beginnings)
    ]
    if lines:
        raise ValueError(f"{path} is a run of a different model:" + "".join(lines))
    step, weights = load_weights(path, step)
    shapes = blueprint_of(run.config, run.categories).shapes()
    check_arrays_match(shapes, weights, source=f"{path}, step {step}")
    return convert_stem(weights, channels)


def _other_pixels(config: Config, run: Config) -> bool:
    """Whether images have other channels or values in other units, so that their means differ, too."""
    ours, theirs = config.model, run.model
    return (len(ours.pixel_mean), ours.pixel_type) != (len(theirs.pixel_mean), theirs.pixel_type)


def _of_parts(arrays: Arrays, parts: list[Part]) -> Arrays:
    modules = {module for part in parts for module in part.modules}
    return {name: array for name, array in arrays.items() if name.partition(".")[0] in modules}


def _modules(arrays: Arrays) -> tuple[str, ...]:
    """The first words of the arrays' names."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in arrays))


def _check_equal(arrays: Arrays, others: Arrays, *, sources: tuple[str, str]) -> None:
    """Raises ValueError, naming arrays, unless those that both have are equal bit for bit."""
    unequal = [
        name
        for name in arrays
        if name in others and not np.array_equal(np.asarray(arrays[name]), np.asarray(others[name]))
    ]
    if unequal:
        raise ValueError(
            f"{sources[0]} and {sources[1]} differ in {len(unequal)} arrays that both have, such as "
            f"{unequal[0]}: RPN and heads were trained on other features. Train both from one run with "
            "model.backbone_frozen_stages 5 and model.fpn_frozen (docs/four_step_training.md)"
        )
