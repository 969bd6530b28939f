"""Exports a run's weights to a file that torchvision can load."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrcnn_jax.config import Config, presets
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import differences
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import check_arrays_match, load_weights
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.weights.files import check_writable, write_arrays
from mrcnn_jax.weights.torchvision import to_torchvision

# torchvision's model builders, with the model fields that differ from ``presets.torchvision``.
_V2 = {"fpn_norm": "batch", "box_norm": "batch", "rpn_convs": 2, "box_convs": 4, "box_fcs": 1}
_BUILDERS: dict[str, dict[str, Any]] = {
    "maskrcnn_resnet50_fpn": {},
    "maskrcnn_resnet50_fpn_v2": {**_V2, "mask_norm": "batch"},
    "fasterrcnn_resnet50_fpn": {"mask": False},
    "fasterrcnn_resnet50_fpn_v2": {**_V2, "mask": False},
    "keypointrcnn_resnet50_fpn": {"mask": False, "keypoint": True},
}
_FIXED_ANCHORS = ("maskrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2")  # take no anchor generator
_EPSILON = 1e-5  # the default of torchvision's batch norm
_RGB = 3  # channels that torchvision's functions build a model for
_PIXELS = ("pixel_mean", "pixel_std", "pixel_type")


def export_torchvision(
    workdir: str | Path, output: str | Path, *, step: int | Literal["best"] | None = None
) -> str:
    """Writes a run's weights for torchvision's ``load_state_dict(strict=True)``; returns how to load them.

    Args:
        workdir: The run's directory.
        output: ``.safetensors`` or ``.npz``.
        step: The checkpoint to export; see ``load_weights``.

    Raises ValueError or OSError, and writes nothing, if ``workdir`` is not a run, if torchvision has no such
    model, or if ``output`` already exists or cannot be written.
    """
    output = Path(output)
    check_writable(output)  # first, as reading the weights takes longer
    run = read_run(workdir)
    step, weights = load_weights(workdir, step)
    blueprint = make_blueprint(
        run.config.model, num_classes=len(run.categories), num_keypoints=len(run.categories.keypoint_names)
    )
    check_arrays_match(blueprint.shapes(), weights, source=f"{workdir}, step {step}")
    arrays = to_torchvision({name: np.asarray(array) for name, array in weights.items()}, blueprint)
    write_arrays(output, arrays)
    lines = [f"{output}: {len(arrays)} arrays of step {step} of {workdir}; load them in Python with"]
    lines += loading_lines(output, run.config, run.categories)
    lines += difference_lines(run.config)
    return "\n".join(lines)


def loading_lines(output: Path, config: Config, categories: Categories) -> list[str]:
    """Lines of Python that build torchvision's model and load the file ``output`` into it."""
    arguments: dict[str, Any] = {"num_classes": len(categories) + 1}  # including the background
    if config.model.keypoint:
        arguments["num_keypoints"] = len(categories.keypoint_names)
    sizes = {"min_size": config.data.test_short_side, "max_size": config.data.long_side}
    if sizes != {"min_size": 800, "max_size": 1333}:
        arguments |= sizes
    channels, replaced = len(config.model.pixel_mean), []
    if channels != _RGB:
        # torchvision takes 8 bits as floats from 0 to 1.
        scale = 255 if config.model.pixel_type == "uint8" else 1
        for key, values in (("image_mean", config.model.pixel_mean), ("image_std", config.model.pixel_std)):
            arguments[key] = [round(value / scale, 6) for value in values]
        conv = f"torch.nn.Conv2d({channels}, {config.model.backbone_width}, 7, 2, 3, bias=False)"
        replaced = [f"model.backbone.body.conv1 = {conv}"]
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    anchors = []
    if _passed_anchors(config):
        scales = config.model.anchor_sizes  # of which torchvision wants one tuple per level
        count = len(scales) // len(presets.torchvision().model.anchor_sizes)
        levels = tuple(scales[first : first + count] for first in range(0, len(scales), count))
        made = f"sizes={levels}, aspect_ratios=({config.model.anchor_ratios},) * {len(levels)}"
        anchors = [f"anchors = torchvision.models.detection.anchor_utils.AnchorGenerator({made})"]
        given += ", rpn_anchor_generator=anchors"
    if name := builder_name(config):
        built = f"torchvision.models.detection.{name}(weights=None, weights_backbone=None, {given})"
    else:
        built = f"...  # a detector with these layers, for which torchvision has no function; {given}"
    if output.suffix == ".npz":
        imports = "import numpy, torch, torchvision"
        loaded = f"{{name: torch.from_numpy(x) for name, x in numpy.load({str(output)!r}).items()}}"
    else:
        imports = f"import safetensors.torch, {'torch, ' if replaced else ''}torchvision"
        loaded = f"safetensors.torch.load_file({str(output)!r})"
    lines = [imports, *anchors, f"model = {built}", *replaced, f"model.load_state_dict({loaded})"]
    if config.model.backbone_norm_epsilon != _EPSILON:
        lines += ["for module in model.backbone.body.modules():", "    if hasattr(module, 'eps'):"]
        lines += [f"        module.eps = {config.model.backbone_norm_epsilon}"]
    return [f"  {line}" for line in lines]


def difference_lines(config: Config) -> list[str]:
    """Lines that list the settings with which torchvision's detections differ; empty if they do not."""
    differing = _differences(config, "behaviour", _passed_anchors(config))
    lines = [
        f"  {name}: {ours!r} in the run, {theirs!r} in torchvision"
        for name, (ours, theirs) in differing.items()
    ]
    if lines:
        lines.insert(0, "torchvision's detections will differ somewhat, because the run has other settings:")
    return lines


def builder_name(config: Config) -> str | None:
    """The name of torchvision's function that builds a model with the same arrays; None if there is none.

    Functions outside ``_FIXED_ANCHORS`` have to be passed the anchors if the run has others.
    """
    for name, changes in _BUILDERS.items():
        if not _differences(config, "architecture", changes):
            # The numbers of sizes and ratios determine the shapes of the RPN's last layers.
            fields = ("anchor_sizes", "anchor_ratios")
            ours, theirs = (
                [len(getattr(model, field)) for field in fields]
                for model in (config.model, presets.torchvision().model)
            )
            same_shapes = name not in _FIXED_ANCHORS or ours == theirs
            return name if same_shapes else None
    return None


def _passed_anchors(config: Config) -> dict[str, tuple[float, ...]]:
    """The model fields that ``loading_lines`` passes on as an anchor generator; empty if it passes none."""
    name, builtin = builder_name(config), presets.torchvision().model
    fields = {field: getattr(config.model, field) for field in ("anchor_sizes", "anchor_ratios")}
    if name is None or name in _FIXED_ANCHORS:
        return {}
    return {} if all(getattr(builtin, field) == values for field, values in fields.items()) else fields


def _differences(config: Config, decides: str, changes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of each field that decides the architecture or behaviour otherwise than in torchvision.

    ``changes`` are made to torchvision's model first. Settings of heads that the model lacks are left out,
    and so are those that ``loading_lines`` hands on.
    """
    model, data, built = config.model, config.data, presets.torchvision()
    built.model = dataclasses.replace(
        built.model,
        backbone_norm=model.backbone_norm,  # "frozen_batch" and "batch" detect the same
        backbone_norm_epsilon=model.backbone_norm_epsilon,
        **changes,
    )
    built.data = dataclasses.replace(
        built.data, test_short_side=data.test_short_side, long_side=data.long_side
    )
    absent = tuple(f"{head}_" for head in ("mask", "keypoint") if not getattr(model, head))
    if len(model.pixel_mean) != _RGB:
        absent += _PIXELS
    return {
        name: values
        for name, values in differences(config, built).items()
        if SETTINGS[name].decides == decides and not name.partition(".")[2].startswith(absent)
    }
