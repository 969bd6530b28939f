"""Configs from dicts, compared, and checked as a whole by the rules of ``fields.py``."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.backbones import backbone_problems
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.limits import CANVAS_UNIT, LIMITS, LONGEST, SHARED_HEIGHT
from mrcnn_jax.config.rules import numbers
from mrcnn_jax.config.suggestions import suggest

_LEVELS = 5  # p2 to p6
_LONGEST_SHOWN = 300  # characters of a value in a message


def flatten(config: Config) -> dict[str, Any]:
    """Every value of a config by its dotted name, such as ``train.steps``, in the order of ``fields.py``."""
    return {
        f"{section}.{name}": value
        for section, values in to_dict(config).items()
        for name, value in values.items()
    }


def from_dict(values: dict) -> Config:
    """The config that ``to_dict`` made ``values`` of, or that was read from JSON: lists become tuples.

    A field that is not given keeps its default, so configs written before a field existed still load.
    Raises ValueError with every unknown field (and what may be meant) and every value of a wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"a config must be a dict of sections, not {_shown(values)}")
    config, problems = Config(), []
    for name, fields in values.items():
        section = getattr(config, name, None)
        if section is None:
            problems.append(f"unknown field {name}; {suggest(name)}")
        elif not isinstance(fields, dict):
            problems.append(f"{name} is {_shown(fields)}; must be a dict of its fields")
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
            yield f"unknown field {dotted}; {suggest(dotted)}"
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
    raise TypeError(f"{_shown(value)}; must be of type {kind if get_origin(kind) else kind.__name__}")


def _shown(value: Any) -> str:
    """The value as Python code, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def differences(here: Config, run: Config) -> dict[str, tuple[Any, Any]]:
    """Both values of each field that differs, by its dotted name: ``{"train.steps": (500, 300)}``."""
    in_run = flatten(run)
    return {name: (value, in_run[name]) for name, value in flatten(here).items() if value != in_run[name]}


def validate(config: Config) -> None:
    """Nothing, if every value is of its field's type and within its range, and the values agree.

    Raises ValueError with all problems at once, a line each: the field, its value and the rule.
    """
    values = flatten(from_dict(to_dict(config)))
    problems = [*_range_problems(values)]
    if not any(
        map(_is_too_long, values.values())
    ):  # there could be a problem with each of a million canvases
        problems += _relation_problems(values)
    if problems:
        raise ValueError("\n".join(problems))


def _range_problems(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers(value)):
            yield f"{name} is {_shown(value)}; must be finite"
        elif _is_too_long(value):
            yield f"{name} has {len(value)} values; must have at most {LONGEST}"
        elif any(number > LIMITS.get(name, math.inf) for number in numbers(value)):
            yield f"{name} is {_shown(value)}; must be at most {LIMITS[name]}"
        elif broken := [rule.words for rule in SETTINGS[name].rules if not rule.holds(value)]:
            yield f"{name} is {_shown(value)}; {broken[0]}"


def _is_too_long(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > LONGEST


def _relation_problems(values: dict[str, Any]) -> Iterator[str]:
    sizes, multiple = values["model.anchor_sizes"], values["model.padding_multiple"]
    features = values["model.features"]
    if features == "fpn" and len(sizes) % _LEVELS:
        yield (
            f"model.anchor_sizes is {_shown(sizes)}; must have {_LEVELS}, one per level p2 to p6, or a "
            "multiple, as many on each"
        )
    if features == "fpn" and multiple % CANVAS_UNIT:
        yield f"model.padding_multiple is {multiple}; must be a multiple of {CANVAS_UNIT}, the stride of p5"
    yield from _pixel_problems(values)
    yield from backbone_problems(values)
    if values["model.res5_stride"] == 1 and features != "c4":
        yield (
            f"model.res5_stride is 1; must be 2 with model.features {features!r}: only the heads of "
            "'c4' contain stage 5"
        )
    yield from _mask_problems(values)
    yield from _part_problems(values)
    yield from _cascade_problems(values)
    yield from _canvas_problems(values)
    yield from _data_set_problems(values)
    yield from _scale_problems(values)
    low, high = values["train.rpn_negative_iou"], values["train.rpn_positive_iou"]
    if low > high:
        yield f"train.rpn_negative_iou is {low}; must not exceed train.rpn_positive_iou ({high})"
    yield from _augmentation_problems(values)
    decay_steps = values["train.decay_steps"]
    if any(later <= earlier for earlier, later in itertools.pairwise(decay_steps)):
        yield f"train.decay_steps is {_shown(decay_steps)}; must ascend"
    if values["train.nesterov"] and values["train.optimizer"] != "sgd":
        yield f"train.nesterov is True; must be False with train.optimizer {values['train.optimizer']!r}"
    if values["train.optimizer"] == "adamw":  # both correct the bias of their mean by 1 - beta^step
        for name in ("train.momentum", "train.adam_b2"):
            if values[name] == 1:
                yield f"{name} is 1.0; must be below 1 with train.optimizer 'adamw'"
    for name, none in (("train.validation_loss", False), ("train.stop_after", 0)):
        if values[name] and not values["train.eval_every"]:
            yield f"{name} is {values[name]}; must be {none} without evaluations (train.eval_every is 0)"


def _pixel_problems(values: dict[str, Any]) -> Iterator[str]:
    mean, std, kind = (values[f"model.{name}"] for name in ("pixel_mean", "pixel_std", "pixel_type"))
    if len(std) != len(mean):
        yield (
            f"model.pixel_std is {_shown(std)}; must have one value for each channel, like model.pixel_mean, "
            f"which is {_shown(mean)}"
        )
    if kind == "uint8" and min(mean, default=0) < 0:
        yield f"model.pixel_mean is {_shown(mean)}; must not be negative with model.pixel_type 'uint8'"
    if len(mean) < 3 and values["model.pixel_order"] != "rgb":
        yield f"model.pixel_order is 'bgr'; must be 'rgb' with the channels of model.pixel_mean: {len(mean)}"
    shown = values["data.shown_channels"]
    if len(shown) not in (0, 1, 3) or max(shown, default=0) >= len(mean):
        yield (
            f"data.shown_channels is {_shown(shown)}; must be one or three of the {len(mean)} channels of "
            f"model.pixel_mean, from 0 to {len(mean) - 1}, or empty"
        )
    if values["data.colour_jitter"] and (len(mean) != 3 or kind != "uint8"):
        yield (
            "data.colour_jitter is True; must be False unless images are RGB of 8 bits (model.pixel_mean has "
            f"{len(mean)} values, model.pixel_type is {kind!r}); --augment can change other channels"
        )


def _data_set_problems(values: dict[str, Any]) -> Iterator[str]:
    more = values["data.more_train_annotations"]
    for name, may_be_empty in (("data.more_train_images", False), ("data.more_train_records", True)):
        value = values[name]
        if len(value) != len(more) and not (may_be_empty and not value):
            yield (
                f"{name} is {_shown(value)}; must have one for each of data.more_train_annotations, "
                f"which is {_shown(more)}"
            )
    shares = values["data.train_shares"]
    if shares and len(shares) != 1 + len(more):
        yield (
            f"data.train_shares is {_shown(shares)}; must be empty or have {1 + len(more)}: one for "
            "data.train_annotations and for each of data.more_train_annotations"
        )


def _mask_problems(values: dict[str, Any]) -> Iterator[str]:
    for name, plain in (("mask_loss", "sigmoid"), ("mask_agnostic", False), ("mask_fcs", 0)):
        if not values["model.mask"] and (value := values[f"model.{name}"]) != plain:
            yield f"model.{name} is {value!r}; must be {plain!r} with model.mask False"
    if values["model.mask_cascade"]:
        for name, wanted in (("mask", True), ("mask_loss", "sigmoid")):
            if (value := values[f"model.{name}"]) != wanted:
                yield f"model.{name} is {value!r}; must be {wanted!r} with model.mask_cascade True"
        if not values["model.box_cascade"]:
            yield "model.mask_cascade is True; must be False without a cascade (model.box_cascade is empty)"
    if (fcs := values["model.mask_fcs"]) > 0:
        for name, none in (("mask_convs", 0), ("mask_norm", "")):
            if (value := values[f"model.{name}"]) != none:
                yield (
                    f"model.{name} is {value!r}; must be {none!r} with model.mask_fcs {fcs}, fully connected "
                    "layers in place of the convolutions"
                )


def _part_problems(values: dict[str, Any]) -> Iterator[str]:
    """Parts of the model that need others, or what only others read."""
    if not values["model.box"]:
        for name, plain in (
            ("mask", False),
            ("keypoint", False),
            ("box_agnostic", False),
            ("box_cascade", ()),
            ("roi_pooling", "align"),
            ("box_scores", "softmax"),
            ("rpn", True),
        ):
            if (value := values[f"model.{name}"]) != plain:
                yield (
                    f"model.{name} is {value!r}; must be {plain!r} without the box head (model.box is False)"
                )
    if values["model.rpn"]:
        for name in ("train_proposals", "val_proposals"):
            if path := values[f"data.{name}"]:
                yield (
                    f"data.{name} is {_shown(path)}; must be empty for a model with an RPN, which makes its "
                    "own proposals (model.rpn is True)"
                )
    if (classes := values["train.federated_classes"]) and values["model.box_scores"] != "sigmoid":
        yield f"train.federated_classes is {classes}; must be 0 unless model.box_scores is 'sigmoid'"
    if values["model.fpn_fuse"] != "sum" and (
        values["model.features"] != "fpn" or values["model.backbone"].startswith("vit_")
    ):
        yield f"model.fpn_fuse is {values['model.fpn_fuse']!r}; must be 'sum' without FPN's top-down path"
    if values["model.fpn_frozen"] and values["model.features"] != "fpn":
        features = values["model.features"]
        yield f"model.fpn_frozen is True; must be False without a pyramid (model.features is {features!r})"


def _cascade_problems(values: dict[str, Any]) -> Iterator[str]:
    cascade, ious = values["model.box_cascade"], values["train.cascade_positive_ious"]
    if len(ious) != len(cascade):
        yield (
            f"train.cascade_positive_ious is {_shown(ious)}; must have one for each of model.box_cascade, "
            f"which is {_shown(cascade)}"
        )
    if cascade and values["model.box"]:
        for name, wanted in (("model.box_agnostic", True), ("model.features", "fpn")):
            if (value := values[name]) != wanted:
                yield f"{name} is {value!r}; must be {wanted!r} with a cascade (model.box_cascade)"


def _canvas_problems(values: dict[str, Any]) -> Iterator[str]:
    canvases = values["data.canvases"]
    # Levels p2 to p5 each halve the one below, and the top-down path doubles them back: nothing may be
    # rounded on the way, down to stride 32.
    pyramid = values["model.features"] == "fpn"
    for canvas in canvases:
        if pyramid and any(side % CANVAS_UNIT for side in canvas):
            yield (
                f"data.canvases has {canvas!r}; height and width must be multiples of {CANVAS_UNIT}, "
                "the stride of p5, so that every level is exactly half of the one below"
            )
    for name in ("train.spatial_devices", "test.spatial_devices"):
        if values[name] > 1 and values["model.backbone_deformable"]:
            yield (
                f"{name} is {values[name]}; must be 1 with model.backbone_deformable, whose convolutions may "
                "read any row of an image"
            )
        unit = CANVAS_UNIT * values[name]
        for canvas in canvases:
            if values[name] > 1 and (canvas[0] % unit or canvas[0] < SHARED_HEIGHT):
                yield (
                    f"data.canvases has {canvas!r}; with {name} {values[name]} the height must be a multiple "
                    f"of {unit}, so that each device has equally many rows of every map, and at least "
                    f"{SHARED_HEIGHT}"
                )
    # What no canvas holds would be shrunk to below the size that is asked for.
    for (height, width), sides in _largest_sizes(values).items():
        if canvases and not any(height <= canvas[0] and width <= canvas[1] for canvas in canvases):
            missing = tuple(-(-side // CANVAS_UNIT) * CANVAS_UNIT for side in (height, width))
            yield (
                f"data.canvases is {_shown(canvases)}; one must hold images of {height}x{width} (height x "
                f"width), the largest that {sides} make: add {missing!r}"
            )


def _largest_sizes(values: dict[str, Any]) -> dict[tuple[int, int], str]:
    """The largest heights and widths of images, and the fields that make them."""
    train, test = max(values["data.train_short_sides"]), values["data.test_short_side"]
    train_long, long = values["data.train_long_side"], values["data.long_side"]
    if train_long in (0, long):
        fields = "data.train_short_sides, data.test_short_side and data.long_side"
        largest = [(max(train, test), long, fields)]
    else:
        largest = [
            (train, train_long, "data.train_short_sides and data.train_long_side"),
            (test, long, "data.test_short_side and data.long_side"),
        ]
    return {
        size: fields
        for short, long, fields in largest
        for size in ((min(short, long), long), (long, min(short, long)))
    }


def _augmentation_problems(values: dict[str, Any]) -> Iterator[str]:
    jitter = values["data.scale_jitter"]
    if jitter and (len(jitter) != 2 or jitter[0] > jitter[1]):
        yield f"data.scale_jitter is {_shown(jitter)}; must be the lowest and the highest factor, or empty"
    crop, sides = values["data.crop"], values["data.crop_size"]
    long = values["data.train_long_side"] or values["data.long_side"]
    rule = ""
    if crop.startswith("relative") and max(sides) > 1:
        rule = "must be shares of the height and width, at most 1,"
    elif crop.startswith("absolute") and any(side % 1 for side in sides):
        rule = "must be whole pixels"
    elif crop == "absolute_range" and sides[0] > sides[1]:
        rule = "must be the fewest and the most pixels of a side"
    if rule:
        yield f"data.crop_size is {_shown(sides)}; {rule} with data.crop {crop!r}"
    for name, none in (("data.crop_share", 1.0), ("data.crop_short_sides", ())):
        if not crop and values[name] != none:
            yield f"{name} is {_shown(values[name])}; must be {none} without a crop (data.crop is '')"
    canvases = values["data.canvases"]
    if crop.endswith("_range") and not (jitter or any(min(canvas) >= long for canvas in canvases)):
        side = -(-long // CANVAS_UNIT) * CANVAS_UNIT
        yield (
            f"data.canvases is {_shown(canvases)}; one must hold images of {long}x{long} with "
            f"data.crop {crop!r}, whose crops of an image may be high or wide: add {(side, side)!r}"
        )
    if values["data.copy_paste"] and not values["model.rpn"]:
        yield (
            f"data.copy_paste is {values['data.copy_paste']}; must be 0 for a model without an RPN "
            "(model.rpn is False): there are no proposals for what is pasted"
        )


def _scale_problems(values: dict[str, Any]) -> Iterator[str]:
    scales, long = values["test.scales"], values["test.scales_long_side"]
    if scales or values["test.flip"]:
        if not values["model.rpn"]:
            yield (
                "test.scales and test.flip must be unset for a model without an RPN (model.rpn is False): "
                "proposals from files have one scale"
            )
        if not values["model.box"]:
            yield (
                "test.scales and test.flip must be unset without the box head (model.box is False): "
                "proposals are made at one scale"
            )
    if not scales and long:
        yield f"test.scales_long_side is {long}; must be 0 without test.scales"
    if not scales:
        return
    if len(set(scales)) < len(scales):
        yield f"test.scales is {_shown(scales)}; must not repeat a scale"
    if 0 < long < max(scales):
        yield (
            f"test.scales_long_side is {long}; must be 0 or at least the largest of test.scales "
            f"({max(scales)})"
        )
    largest, short = LIMITS["data.long_side"], values["data.test_short_side"]
    derived = max(scales) * values["data.long_side"] // short
    if not long and derived > largest:
        yield (
            f"test.scales is {_shown(scales)}; with data.long_side {values['data.long_side']} at "
            f"data.test_short_side {short}, the longer side at its largest has up to {derived} pixels; must "
            f"be at most {largest}, or limited by test.scales_long_side"
        )
