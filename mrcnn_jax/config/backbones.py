"""What each kind of backbone asks of the other settings."""

from collections.abc import Iterator
from typing import Any

# Settings of ResNets, with the values that mean none of them.
_OF_RESNETS = {
    "backbone_deformable": "",
    "non_local": "",
    "backbone_stride_in_1x1": False,
    "backbone_depth": 50,
    "backbone_groups": 1,
    "backbone_group_width": 64,
}


def backbone_problems(values: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a config's values, by their dotted names, for its ``model.backbone``."""
    match values["model.backbone"].partition("_")[0]:
        case "resnet":
            yield from _resnet_problems(values)
        case "regnetx" | "regnety":
            yield from _regnet_problems(values)
        case "convnext":
            yield from _layer_norm_problems(values)
        case "swin":
            yield from _layer_norm_problems(values)
            yield from _spatial_problems(values)
        case "vit":
            yield from _vit_problems(values)
    if values["model.backbone"].startswith(("resnet", "regnet")):
        yield from _unless(values, {"backbone_drop_path": 0.0})


def _resnet_problems(values: dict[str, Any]) -> Iterator[str]:
    features = values["model.features"]
    if values["model.backbone_depth"] < 50:
        if features == "dc5":
            yield "model.features is 'dc5'; must be another with a model.backbone_depth under 50"
        for name, plain in (
            ("backbone_groups", 1),
            ("backbone_group_width", 64),
            ("backbone_deformable", ""),
        ):
            if (value := values[f"model.{name}"]) != plain:
                yield f"model.{name} is {value!r}; must be {plain!r} with a model.backbone_depth under 50"
    if features == "c4" and values["model.backbone_deformable"]:
        yield "model.features is 'c4'; must be another with model.backbone_deformable"


def _regnet_problems(values: dict[str, Any]) -> Iterator[str]:
    yield from _unless(values, {**_OF_RESNETS, "features": "fpn"})
    yield from _width_problems(values)


def _layer_norm_problems(values: dict[str, Any], **more: Any) -> Iterator[str]:
    """Of backbones with layer norms and dropped paths; ``more`` are fields with the values they must have."""
    yield from _unless(values, {**_OF_RESNETS, "features": "fpn", "backbone_norm": "frozen_batch", **more})
    yield from _width_problems(values)
    if values["model.backbone_drop_path"] == 1:
        yield "model.backbone_drop_path is 1.0; must be below 1, or nothing of the last block is trained"


def _spatial_problems(values: dict[str, Any]) -> Iterator[str]:
    """Of backbones whose windows lie across the seams of a map that devices share."""
    for name in ("train.spatial_devices", "test.spatial_devices"):
        if values[name] > 1:
            yield f"{name} is {values[name]}; must be 1 with model.backbone {values['model.backbone']!r}"


def _vit_problems(values: dict[str, Any]) -> Iterator[str]:
    yield from _layer_norm_problems(values, backbone_frozen_stages=0, fpn_frozen=False)
    side, backbone = values["model.padding_multiple"], values["model.backbone"]
    for canvas in values["data.canvases"]:
        if canvas != (side, side):
            yield (
                f"data.canvases has {canvas!r}; must be {(side, side)!r}, by model.padding_multiple, with "
                f"model.backbone {backbone!r}, which sees the whole canvas"
            )
    yield from _spatial_problems(values)
    if scales := values["test.scales"]:
        yield f"test.scales is {scales!r}; must be empty with model.backbone {backbone!r}, of one canvas"


def _width_problems(values: dict[str, Any]) -> Iterator[str]:
    if values["model.backbone_width"] % 8:
        yield (
            f"model.backbone_width is {values['model.backbone_width']}; must be a multiple of 8 with "
            f"model.backbone {values['model.backbone']!r}"
        )


def _unless(values: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """A line for each field of the model that has another value than is wanted."""
    backbone = values["model.backbone"]
    for name, plain in wanted.items():
        if (value := values[f"model.{name}"]) != plain:
            yield f"model.{name} is {value!r}; must be {plain!r} with model.backbone {backbone!r}"
