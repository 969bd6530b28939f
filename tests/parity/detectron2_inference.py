"""What a Detectron2 model computes for one image, stage by stage (keys: ``detectron2_peer.py``)."""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
Calls = list[tuple[tuple[Any, ...], Any]]


@contextmanager
def spied(owner: Any, method: str, keep: Callable[[Any], Any] = lambda result: result) -> Iterator[Calls]:
    """Records a method's calls inside the context: the positional arguments, and ``keep(result)``."""
    calls: Calls = []
    original = getattr(owner, method)

    def call(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        calls.append((arguments, keep(result)))
        return result

    with mock.patch.object(owner, method, call):
        yield calls


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return array(tensor.movedim(-3, -1))


def level_name(name: str) -> str:
    """Our name of a map: of Detectron2's "res2", of a RegNet's "s1" and of the pyramid's "p2"."""
    if match := re.fullmatch(r"s(\d)", name):
        return f"c{int(match[1]) + 1}"
    return name.replace("res", "c")


def stage_names(bottom_up: torch.nn.Module) -> list[str]:
    """The names of the stages of a ResNet or RegNet; none of a ViT."""
    if hasattr(bottom_up, "simfp_2"):
        return []
    regnet = hasattr(bottom_up, "stages_and_names")
    return [name for _, name in bottom_up.stages_and_names] if regnet else bottom_up.stage_names


def predict(predictor: Any, image: np.ndarray) -> tuple[Arrays, Arrays]:
    """The detections of an image ``[H W 3]``, and the stages before them."""
    model = predictor.model
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    rpn, heads = model.proposal_generator, model.roi_heads
    with ExitStack() as stack:

        def spy(module: torch.nn.Module, **options: Any) -> Calls:
            return stack.enter_context(spied(module, "forward", **options))

        stages = {name: spy(getattr(bottom_up, name)) for name in stage_names(bottom_up)}
        backbone, anchors, rpn_head = spy(model.backbone), spy(rpn.anchor_generator), spy(rpn.rpn_head)
        proposals, box_head = spy(rpn), spy(first_predictor(heads))
        detected = spy(heads, keep=copy.deepcopy)  # the boxes are scaled in place afterwards
        mask_head = spy(heads.mask_head.predictor) if heads.mask_on else []
        found = predictor(image)["instances"]

    ((pixels,), features) = backbone[0]
    before = detected[0][1][0][0]
    detections = {
        "image_size": np.array(before.image_size),
        "pixels": channels_last(pixels[0]),
        "boxes": array(found.pred_boxes.tensor),
        "scores": array(found.scores),
        "labels": array(found.pred_classes) + 1,
    }
    if found.has("pred_masks"):
        detections["masks"] = np.packbits(array(found.pred_masks))
        detections["mask_shape"] = np.array(found.pred_masks.shape)
    if found.has("pred_keypoints"):
        detections["keypoints"] = array(found.pred_keypoints)

    arrays = {f"backbone/{level_name(name)}": channels_last(calls[0][1][0]) for name, calls in stages.items()}
    arrays |= {f"features/{level_name(name)}": channels_last(value[0]) for name, value in features.items()}
    objectness, deltas = rpn_head[0][1]
    for level, name in enumerate(map(level_name, rpn.in_features)):
        arrays[f"objectness/{name}"] = channels_last(objectness[level][0]).reshape(-1)
        arrays[f"deltas/{name}"] = channels_last(deltas[level][0]).reshape(-1, 4)
        arrays[f"anchors/{name}"] = array(anchors[0][1][level].tensor)
    box_logits, box_deltas = box_head[0][1]
    arrays |= proposal_arrays(proposals[0][1][0][0], "proposals")
    arrays["box_logits"] = array(box_logits)
    arrays["box_deltas"] = array(box_deltas).reshape(len(box_deltas), -1, 4)
    arrays["detected_boxes"] = array(before.pred_boxes.tensor)
    arrays["detected_labels"] = array(before.pred_classes) + 1
    if mask_head:
        arrays["mask_logits"] = array(of_categories(mask_head[0][1], before.pred_classes))
    if before.has("pred_keypoint_heatmaps"):
        arrays["keypoint_logits"] = channels_last(before.pred_keypoint_heatmaps)
    return detections, arrays


def first_predictor(heads: torch.nn.Module) -> torch.nn.Module:
    """The last layers of the box head, or of the first one of a cascade."""
    cascade = isinstance(heads.box_predictor, torch.nn.ModuleList)
    return heads.box_predictor[0] if cascade else heads.box_predictor


def of_categories(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The mask logits ``[N M M]`` of each region's category; a class-agnostic head has one for all."""
    return logits[:, 0] if logits.shape[1] == 1 else logits[torch.arange(len(logits)), classes]


def proposal_arrays(proposals: Any, name: str) -> Arrays:
    return {
        f"{name}/boxes": array(proposals.proposal_boxes.tensor),
        f"{name}/scores": array(proposals.objectness_logits),
    }
