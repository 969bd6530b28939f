"""Compares the arrays of a weights file with a model's, and says why they do not fit.

The likely cause is read from the file: another project's names, or another architecture.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mrcnn_jax.config import ModelConfig, presets
from mrcnn_jax.models.regnet import SIZES

Shape = tuple[int, ...]

_EXAMPLES = 2  # of the names of each kind

# Names that only one project or model has. The first pattern that is found in a name holds.
_PROJECTS = (
    (
        r"^roi_head\.(semantic_head|grid_head|mask_iou_head|point_head|shared_head)\.",
        "MMDetection's other heads",
    ),
    (r"^backbone\.(layers\.\d+|stage\d)\b", "MMDetection's other backbones"),
    (r"^(bbox_head|mask_head|panoptic_head|semantic_head)\.", "MMDetection's other detectors"),
    (r"^roi_heads\.(box|mask|keypoint)\.(feature_extractor|predictor)\.", "maskrcnn-benchmark"),
    (
        r"^(conv_rpn|rpn_cls_logits|rpn_bbox_pred|fpn_inner_|_\[mask\]_|conv5_mask_|mask_fcn_logits_)",
        "Detectron",
    ),
    (r"^roi_heads\.(mask_head\.(coarse_head|point_head)|mask_(coarse|point)_head)", "Detectron2's PointRend"),
    (r"^proposal_generator\.(centernet_head|fcos_head)", "Detectron2's CenterNet2 or Detic"),
    (r"^roi_heads\.densepose_", "Detectron2's DensePose"),
    (r"^sem_seg_head\.", "Detectron2's segmentation models, such as Panoptic FPN or Mask2Former"),
    (r"^backbone\.bottom_up\.(blocks|layers)\.", "Detectron2's MViT or Swin"),
    (r"^head\.(cls_subnet|bbox_subnet)", "Detectron2's RetinaNet"),
    (r"^head\.(classification_head|regression_head)", "torchvision's RetinaNet, FCOS or SSD"),
    (r"^backbone\.body\.\d+\.", "torchvision's detectors with MobileNet"),
    (r"^features\.\d+\.", "torchvision's other classifiers"),
    (r"(^|\.)transformer\.(encoder|decoder)\.layers\.|^class_embed\.", "DETR"),
    (r"^(model\.)?model\.\d+\.(conv|cv\d|m|bn|dfl)\b", "a YOLO model"),
    (
        r"(^|\.)(embedder\.embedder|encoder\.stages?\.\d+\.layers?\.\d+|encoder\.layer\.\d+)\.|\.conv_encoder\.",
        "Hugging Face's models",
    ),
    (
        r"(^|(?<!backbone\.net)\.)(blocks|stages)\.\d+\.(\d+\.|blocks\.\d+\.)?(attn|norm1|conv_dw|mlp)\b|^s\d\.b\d+\.|^conv1\.\d\.weight",
        "timm's models other than plain ResNets",
    ),
)

# A block of MMDetection's Swin or ConvNeXt, which are ours, too, with its number in the third stage.
_FOUR_STAGES = r"backbone\.stages\.2\.(?:blocks\.)?(\d+)\.(attn\.w_msa|depthwise_conv)\."

# A block of a RegNet, with the number of its stage.
_REGNET = r"^backbone\.bottom_up\.s(\d)\.b\d+\.f\.a\.weight$"

_BLOCKS = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}


def check_fit(wanted: Mapping[str, Shape], found: Mapping[str, np.ndarray], *, source: str) -> None:
    """Raises ValueError unless ``found`` has exactly the ``wanted`` arrays, by name and shape.

    The message begins with ``source``. It counts the arrays that are missing, unexpected or of another shape,
    and has the first of each.
    """
    shapes = [
        f"{name} is {found[name].shape}, must be {shape}"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [_printable(name) for name in found if name not in wanted],
        "of another shape": shapes,
    }
    if not any(problems.values()):
        return
    fitting = len(wanted) - len(problems["missing"]) - len(shapes)
    lines = [f"{source}: the arrays do not fit the model: {fitting} of its {len(wanted)} do"]
    for kind, names in problems.items():
        if names:
            head = f"{len(names)} {kind}: "
            more = [f"and {len(names) - _EXAMPLES} more"] if len(names) > _EXAMPLES else []
            lines.append(head + ("\n  " + " " * len(head)).join(names[:_EXAMPLES] + more))
    raise ValueError("\n  ".join(lines))


def other_project(names: Collection[str]) -> str | None:
    """The project whose models have such names, with one of them; None if none is recognised."""
    if any(re.match(_FOUR_STAGES, name) for name in names):
        return None
    for pattern, project in _PROJECTS:
        for name in names:
            if re.search(pattern, name):
                return f"{project} ({_printable(name)})"
    return None


def architecture(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of ``ModelConfig`` that can be told from a detector's arrays, with their values.

    The names are torchvision's, Detectron2's or MMDetection's; it is empty for backbones that are not ours.
    """
    shapes = {name: array.shape for name, array in arrays.items() if len(name) < 200}  # a detector's
    names = "\n".join(shapes)
    if regnet_stages := re.findall(_REGNET, names, re.MULTILINE):
        squeezed = "backbone.bottom_up.s1.b1.f.se.f_ex.0.weight" in shapes
        counts = tuple(regnet_stages.count(number) for number in "1234")
        for name, size in SIZES.items():
            if (size.blocks, size.squeezed > 0) == (counts, squeezed):
                return {"backbone": name}
        return {}
    if units := re.findall(_FOUR_STAGES, names):
        blocks = 1 + max(int(number) for number, _ in units)
        sizes = {
            "attn.w_msa": {6: "swin_t", 18: "swin_s"},
            "depthwise_conv": {9: "convnext_t", 27: "convnext_s"},
        }
        backbone = sizes[units[0][1]].get(blocks)
        return {"backbone": backbone} if backbone else {}
    if numbers := set(re.findall(r"^backbone\.net\.blocks\.(\d+)\.", names, re.MULTILINE)):
        backbone = {12: "vit_b", 24: "vit_l", 32: "vit_h"}.get(len(numbers))
        return {"backbone": backbone, "fpn_norm": "layer"} | _cascade_fields(names) if backbone else {}
    stages = {
        number: len(set(re.findall(rf"^backbone\S*\b{stage}\.(\d+)\.", names, re.MULTILINE)))
        for number, stage in ((3, r"(?:layer3|res4)"), (4, r"(?:layer4|res5)"))
    }
    first = {
        unit: next(
            (
                shape
                for name, shape in shapes.items()
                if re.search(rf"\b(layer1|res2)\.0\.{unit}\.weight$", name)
            ),
            None,
        )
        for unit in ("conv1", "conv2", "conv3")
    }
    depth = _BLOCKS.get((stages[3], first["conv3"] is not None))
    if depth is None or not first["conv2"] or len(first["conv2"]) != 4:
        return {}
    fields: dict[str, Any] = {"backbone_depth": depth}
    if first["conv3"] is not None:
        channels, of_group = first["conv2"][:2]
        fields |= {"backbone_groups": channels // max(of_group, 1), "backbone_group_width": of_group}
    one_map = "dc5" if re.search(r"^backbone\.(res5|layer4)\.", names, re.MULTILINE) else "c4"
    fields["features"] = "fpn" if re.search(r"\bfpn\b|\bfpn_", names) else one_map
    fields |= {"mask": "mask_head." in names, "keypoint": "keypoint_head." in names}
    fields |= {"rpn": re.search(r"\brpn\.|\brpn_head\.", names) is not None}
    fields |= {"box": "box_predictor." in names or "bbox_head." in names}
    deeper = re.findall(
        r"rpn\S*head\.(?:rpn_)?conv\.(?:conv)?(\d+)\.(?:0\.|conv\.)?weight$", names, re.MULTILINE
    )
    fields["rpn_convs"] = len(set(deeper)) or 1
    convs = re.findall(
        r"roi_heads?\.b?box_head\.(?:(?:\d+\.)?conv(\d+)|(\d+)\.0|(?:\d+\.)?shared_convs\.(\d+)\.conv)\.weight$",
        names,
        re.MULTILINE,
    )
    fields["box_convs"] = len(set(convs))
    offsets = {
        shape for name, shape in shapes.items() if name.endswith(("2_offset.bias", ".conv_offset.bias"))
    }
    if offsets <= {(18,), (27,)}:
        fields["backbone_deformable"] = "modulated" if (27,) in offsets else "plain" if offsets else ""
    return fields | _agnostic_fields(shapes) | _cascade_fields(names)


def _cascade_fields(names: str) -> dict[str, Any]:
    """The number of box heads, as the fields have it; empty if it is none that a system has models of."""
    detectron2, mmdetection = (
        len(set(re.findall(rf"^{head}\.(\d+)\.", names, re.MULTILINE)))
        for head in (r"roi_heads\.box_predictor", r"roi_head\.bbox_head")
    )
    heads = detectron2 + mmdetection
    if heads == 0:
        return {"box_cascade": ()}
    if heads != 1 + len(presets.CASCADE):
        return {}
    fields = {"box_cascade": presets.CASCADE, "box_agnostic": True}
    if mmdetection:
        fields |= {"box_cascade": presets.MMDETECTION_CASCADE, "mask_cascade": "mask_head." in names}
    return fields


def _agnostic_fields(shapes: Mapping[str, Shape]) -> dict[str, bool]:
    """Whether Detectron2's and MMDetection's heads are class-agnostic; empty if it cannot be told."""

    def rows(*layers: str) -> int:
        return sum(next(iter(shapes.get(f"{layer}.bias", ())), 0) for layer in layers)

    # One category and the background, or a cascade.
    if rows("roi_heads.box_predictor.cls_score", "roi_head.bbox_head.fc_cls") <= 2:
        return {}
    of_boxes = rows("roi_heads.box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg")
    of_masks = rows("roi_heads.mask_head.predictor", "roi_head.mask_head.conv_logits")
    counts = {"box_agnostic": (of_boxes, 4), "mask_agnostic": (of_masks, 1)}
    return {name: count == of_one for name, (count, of_one) in counts.items() if count}


def differing_fields(theirs: Mapping[str, Any], config: ModelConfig) -> tuple[dict[str, Any], str]:
    """The fields of ``theirs`` that differ from ``config``, and lines that say in what."""
    differing = {
        name: value
        for name, value in theirs.items()
        if value != getattr(config, name) and (value, getattr(config, name)) != ("dc5", "c5")  # equal arrays
    }
    lines = [
        f"\nmodel.{name} is {getattr(config, name)!r} in the config, {value!r} in the file"
        for name, value in differing.items()
    ]
    return differing, "".join(lines)


def examples(names: Collection[str]) -> str:
    """The first names, in one line."""
    first = ", ".join(_printable(name) for name in list(names)[:_EXAMPLES])
    return first + (f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else "")


def _printable(name: str) -> str:
    # It comes from the file, so it must not control the user's terminal.
    return name[:100] if name.isprintable() else repr(name[:100])
