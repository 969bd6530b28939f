"""Configs from dicts, compared, and checked as a whole."""

import contextlib
import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from mrcnn_jax.config import Config, to_dict


def _fields(section: str, names: str) -> frozenset[str]:
    return frozenset(f"{section}.{name}" for name in names.split())


# What a field may hold; of a tuple, what each of its numbers may.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "model.backbone_recomputed_stages": (0, 1, 2, 3, 4),
    "model.pixel_order": ("rgb", "bgr"),
    "model.dtype": ("float32", "bfloat16"),
    "model.backbone_depth": (18, 34, 50, 101, 152),
    "model.features": ("fpn", "c4", "dc5"),
    "model.backbone_norm": ("frozen_batch", "batch", "group"),
    "model.fpn_norm": ("", "frozen_batch", "batch", "group"),
    "model.box_norm": ("", "frozen_batch", "batch", "group"),
    "model.mask_norm": ("", "frozen_batch", "batch", "group"),
    "model.anchor_stride": ("level", "image"),
    "model.roi_level_rule": ("detectron2", "torchvision"),
    "data.resize": ("detectron2", "torchvision"),
    "train.schedule": ("step", "cosine"),
    "train.rpn_normalizer": ("fixed", "sampled"),
    "test.mask_paste": ("detectron2", "torchvision"),
    "test.keypoint_score": ("logit", "probability"),
}
_POSITIVE = (
    _fields(
        "model",
        "pixel_std padding_multiple backbone_width backbone_groups backbone_group_width",
    )
    | _fields("model", "rpn_box_weights box_weights")
    | _fields("model", "fpn_channels anchor_sizes anchor_ratios rpn_convs roi_canonical_size")
    | _fields("model", "box_pool_size box_channels mask_pool_size mask_channels")
    | _fields("model", "keypoint_pool_size keypoint_convs keypoint_channels")
    | _fields("data", "train_short_sides test_short_side long_side canvases max_objects mask_grid")
    | _fields("data", "scale_jitter")
    | _fields("train", "steps batch_size learning_rate decay_steps log_every checkpoint_every")
    | _fields("train", "keep_checkpoints rpn_samples rpn_pre_nms rpn_post_nms roi_samples")
    | _fields("test", "batch_size rpn_pre_nms rpn_post_nms candidates detections mask_threshold")
)
_NOT_NEGATIVE = (
    _fields("model", "pixel_mean backbone_norm_epsilon rpn_smallest_side roi_sampling_ratio")
    | _fields("model", "box_convs box_fcs mask_convs")
    | _fields("data", "keypoint_offset")
    | _fields("test", "box_smallest_side")
    | _fields("train", "seed warmup_steps weight_decay weight_decay_norm clip_norm rpn_beta box_beta")
    | _fields("train", "eval_every eval_images")
)
_SHARES = (  # from 0 to 1, both included
    _fields("train", "decay_factor warmup_factor momentum rpn_positive_iou rpn_negative_iou rpn_nms_iou")
    | _fields("train", "rpn_positive_fraction roi_positive_fraction roi_positive_iou crowd_ioa")
    | _fields("test", "rpn_nms_iou score_threshold nms_iou mask_threshold")
)
_NOT_EMPTY = _fields("model", "anchor_sizes anchor_ratios") | _fields(
    "data", "root train_short_sides canvases train_images train_annotations val_images val_annotations"
)

_LEVELS = 5  # p2 to p6
_CANVAS_UNIT = 32  # pixels: the stride of p5


def flatten(config: Config) -> dict[str, Any]:
    """Every value of a config by its dotted name, such as ``train.steps``, in the order of ``config.py``."""
    return {
        f"{section}.{name}": value
        for section, values in to_dict(config).items()
        for name, value in values.items()
    }


def nearest_field(name: str) -> str:
    """The field most like ``name``, which may lack its section or name the wrong one.

    Given without its section where that is right: "steps" for "train.stepz", "data.flip" for "train.flip".
    """
    section = name.rpartition(".")[0]

    def likeness(known: str) -> tuple[float, float]:
        pairs = (name.split(".")[-1], known.split(".")[-1]), (name, known)
        last, whole = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return last, whole

    return max(flatten(Config()), key=likeness).removeprefix(f"{section}.")


def from_dict(values: dict) -> Config:
    """The config that ``to_dict`` made ``values`` of, or that was read from JSON: lists become tuples.

    A field that is not given keeps its default, so configs written before a field existed still load.
    Raises ValueError with every unknown field (and the nearest name) and every value of a wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"a config must be a dict of sections, not {values!r}")
    config, problems = Config(), []
    for name, fields in values.items():
        section = getattr(config, name, None)
        if section is None:
            problems.append(f"unknown field {name}; nearest: {nearest_field(name)}")
        elif not isinstance(fields, dict):
            problems.append(f"{name} is {fields!r}; must be a dict of its fields")
        else:
            problems += _fill(section, fields, section_name=name)
    if problems:
        raise ValueError("\n".join(problems))
    return config


def _fill(section: Any, values: dict, *, section_name: str) -> Iterator[str]:
    """Sets the section's fields, and yields what is wrong with the others."""
    types = {field.name: field.type for field in dataclasses.fields(section)}
    for name, value in values.items():
        dotted = f"{section_name}.{name}"
        if name not in types:
            yield f"unknown field {dotted}; nearest: {nearest_field(dotted)}"
            continue
        try:
            setattr(section, name, typed(value, types[name]))
        except TypeError as error:
            yield f"{dotted} is {error}"


def typed(value: Any, kind: Any) -> Any:
    """``value``, such as JSON gives it, as the type ``kind``: a list becomes a tuple, an int a float.

    Raises TypeError with the value and the type, "True; must be of type int", for any other difference.
    """
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        with contextlib.suppress(TypeError):  # of one item: the message below gives the whole value
            if len(kinds) == len(value):
                return tuple(typed(item, item_kind) for item, item_kind in zip(value, kinds, strict=True))
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
    raise TypeError(f"{value!r}; must be of type {kind if get_origin(kind) else kind.__name__}")


def differences(here: Config, run: Config) -> dict[str, tuple[Any, Any]]:
    """Both values of each field that differs, by its dotted name: ``{"train.steps": (500, 300)}``."""
    in_run = flatten(run)
    return {name: (value, in_run[name]) for name, value in flatten(here).items() if value != in_run[name]}


def validate(config: Config) -> None:
    """Nothing, if every value is of its field's type and within its range, and the values agree.

    Raises ValueError with all problems at once, a line each: the field, its value and the rule.
    """
    values = flatten(from_dict(to_dict(config)))
    problems = [*_range_problems(values), *_relation_problems(values)]
    if problems:
        raise ValueError("\n".join(problems))


def _range_problems(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        numbers = _numbers(value)
        if name in _CHOICES and value not in _CHOICES[name]:
            yield f"{name} is {value!r}; must be one of {', '.join(map(repr, _CHOICES[name]))}"
        elif name in _NOT_EMPTY and not value:
            yield f"{name} is {value!r}; must not be empty"
        elif any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            yield f"{name} is {value!r}; must be finite"
        elif name in _POSITIVE and any(number <= 0 for number in numbers):
            yield f"{name} is {value!r}; must be positive"
        elif name in _NOT_NEGATIVE and any(number < 0 for number in numbers):
            yield f"{name} is {value!r}; must not be negative"
        elif name in _SHARES and not 0 <= value <= 1:
            yield f"{name} is {value!r}; must be between 0 and 1"


def _relation_problems(values: dict[str, Any]) -> Iterator[str]:
    sizes, frozen = values["model.anchor_sizes"], values["model.backbone_frozen_stages"]
    features, multiple = values["model.features"], values["model.padding_multiple"]
    if features == "fpn" and len(sizes) != _LEVELS:
        yield f"model.anchor_sizes is {sizes!r}; must have {_LEVELS}, one per level p2 to p6"
    if features == "fpn" and multiple % _CANVAS_UNIT:
        yield f"model.padding_multiple is {multiple}; must be a multiple of {_CANVAS_UNIT}, the stride of p5"
    if values["model.backbone_depth"] < 50:
        for name, plain in (("features", "fpn"), ("backbone_groups", 1), ("backbone_group_width", 64)):
            if (value := values[f"model.{name}"]) != plain:
                yield f"model.{name} is {value!r}; must be {plain!r} with a model.backbone_depth under 50"
    if not 0 <= frozen <= 5:
        yield f"model.backbone_frozen_stages is {frozen}; must be 0 to 5"
    yield from _canvas_problems(values)
    low, high = values["train.rpn_negative_iou"], values["train.rpn_positive_iou"]
    if low > high:
        yield f"train.rpn_negative_iou is {low}; must not exceed train.rpn_positive_iou ({high})"
    jitter = values["data.scale_jitter"]
    if jitter and (len(jitter) != 2 or jitter[0] > jitter[1]):
        yield f"data.scale_jitter is {jitter!r}; must be the lowest and the highest factor, or empty"
    decay_steps = values["train.decay_steps"]
    if any(later <= earlier for earlier, later in itertools.pairwise(decay_steps)):
        yield f"train.decay_steps is {decay_steps!r}; must ascend"


def _canvas_problems(values: dict[str, Any]) -> Iterator[str]:
    canvases = values["data.canvases"]
    # Levels p2 to p5 each halve the one below, and the top-down path doubles them back: nothing may be
    # rounded on the way, down to stride 32.
    pyramid = values["model.features"] == "fpn"
    for canvas in canvases:
        if pyramid and any(side % _CANVAS_UNIT for side in canvas):
            yield (
                f"data.canvases has {canvas!r}; height and width must be multiples of {_CANVAS_UNIT}, "
                "the stride of p5, so that every level is exactly half of the one below"
            )
    # What no canvas holds would be shrunk to below the size that is asked for.
    long = values["data.long_side"]
    short = min(max((*values["data.train_short_sides"], values["data.test_short_side"])), long)
    for height, width in dict.fromkeys([(short, long), (long, short)]):
        if canvases and not any(height <= canvas[0] and width <= canvas[1] for canvas in canvases):
            missing = tuple(-(-side // _CANVAS_UNIT) * _CANVAS_UNIT for side in (height, width))
            yield (
                f"data.canvases is {canvases!r}; one must hold images of {height}x{width} (height x width), "
                "the largest that data.train_short_sides, data.test_short_side and data.long_side make: "
                f"add {missing!r}"
            )


def _numbers(value: Any) -> list[float]:
    """The numbers in a value or in its nested tuples."""
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []
