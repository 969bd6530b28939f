"""A torchvision detector's results for one image, stage by stage, as arrays by name.

Shapes: image H x W, A anchors of a level (by row, column, ratio), R proposals, C classes with the background
first, D detections, M cells per axis of a head's output, K keypoints. Channels are last everywhere.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

Arrays = dict[str, np.ndarray]
_LEVELS = ("p2", "p3", "p4", "p5", "p6")


def array(tensor: Tensor) -> np.ndarray:
    """A NumPy copy of the tensor, as float32 if it has any float dtype."""
    values = tensor.detach().numpy()
    return values.astype(np.float32) if values.dtype.kind == "f" else values.copy()


def channels_last(tensor: Tensor) -> np.ndarray:
    """``[... C H W]`` as an array ``[... H W C]``."""
    return array(tensor.movedim(-3, -1).contiguous())


def image_tensor(image: np.ndarray) -> Tensor:
    """Pixels ``[H W 3]`` uint8 as torchvision takes them: ``[3 H W]``, 0 to 1."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def pack_masks(masks: np.ndarray, prefix: str) -> Arrays:
    """Masks ``[N H W]`` of 0 and 1 packed into bits of a uint8 array (``np.packbits``), and their shape."""
    return {f"{prefix}masks": np.packbits(masks), f"{prefix}mask_shape": np.array(masks.shape)}


def watch(model: FasterRCNN) -> dict[str, Any]:
    """A dict that holds the latest output of each stage, updated whenever the model runs."""
    outputs: dict[str, Any] = {}
    stages = {
        "transform": model.transform,
        "body": model.backbone.body,
        "features": model.backbone,
        "rpn_head": model.rpn.head,
        "anchors": model.rpn.anchor_generator,
        "box": model.roi_heads.box_predictor,
        "mask": model.roi_heads.mask_predictor if model.roi_heads.has_mask() else None,
        "keypoint": model.roi_heads.keypoint_predictor if model.roi_heads.has_keypoint() else None,
    }
    for name, module in stages.items():
        if module is not None:
            module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    # Postprocessing changes the heads' results in place, so keep a copy.
    model.roi_heads.register_forward_hook(
        lambda _, __, output: outputs.update(detected=[dict(result) for result in output[0]])
    )
    for owner, method in (
        (model.rpn, "filter_proposals"),
        (model.rpn, "assign_targets_to_anchors"),
        (model.roi_heads, "select_training_samples"),
    ):
        setattr(owner, method, _recorded(getattr(owner, method), method, outputs))
    return outputs


@torch.no_grad()
def detect(model: FasterRCNN, outputs: dict[str, Any], image: np.ndarray, *, stages: bool) -> Arrays:
    """Pixels, detections and, if wanted, the stages of an image ``[H W 3]`` uint8.

    torchvision_peer.py lists the keys. ``outputs`` comes from ``watch(model)``.
    """
    result = model.eval()([image_tensor(image)])[0]
    batch = outputs["transform"][0]
    arrays = {
        "pixels": channels_last(batch.tensors)[0],
        "image_size": np.array(batch.image_sizes[0]),
        "boxes": array(result["boxes"]),
        "scores": array(result["scores"]),
        "labels": array(result["labels"]),
    }
    if "masks" in result:
        arrays |= pack_masks(result["masks"][:, 0].numpy() > 0.5, "")
    if "keypoints" in result:
        arrays["keypoints"] = array(result["keypoints"])
        arrays["keypoint_scores"] = array(result["keypoints_scores"])
    return arrays | _stages(outputs) if stages else arrays


def _stages(outputs: dict[str, Any]) -> Arrays:
    arrays = {f"backbone/c{i + 2}": channels_last(x)[0] for i, x in enumerate(outputs["body"].values())}
    anchors = array(outputs["anchors"][0])
    for level, features, objectness, deltas in zip(
        _LEVELS, outputs["features"].values(), *outputs["rpn_head"], strict=True
    ):
        arrays[f"features/{level}"] = channels_last(features)[0]
        arrays[f"objectness/{level}"] = channels_last(objectness)[0].ravel()
        arrays[f"deltas/{level}"] = channels_last(deltas)[0].reshape(-1, 4)
        count = arrays[f"objectness/{level}"].size
        arrays[f"anchors/{level}"], anchors = anchors[:count], anchors[count:]

    boxes, scores = outputs["filter_proposals"]
    arrays["proposals/boxes"], arrays["proposals/scores"] = array(boxes[0]), array(scores[0])
    logits, deltas = outputs["box"]
    arrays["box_logits"], arrays["box_deltas"] = array(logits), array(deltas.unflatten(-1, (-1, 4)))
    detected = outputs["detected"][0]
    arrays["detected_boxes"], arrays["detected_labels"] = array(detected["boxes"]), array(detected["labels"])
    if "mask" in outputs:
        labels = detected["labels"]
        arrays["mask_logits"] = array(outputs["mask"][torch.arange(len(labels)), labels])
    if "keypoint" in outputs:
        arrays["keypoint_logits"] = channels_last(outputs["keypoint"])
    return arrays


def _recorded(function: Callable[..., Any], name: str, outputs: dict[str, Any]) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        outputs[name] = function(*args, **kwargs)
        return outputs[name]

    return record
