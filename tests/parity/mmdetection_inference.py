"""What a model of MMDetection computes for one image, stage by stage (keys: ``mmdetection_peer.py``)."""

import copy
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from detectron2_inference import Arrays, Calls, array, channels_last, of_categories, spied
from mmcv.transforms import Compose

LEVELS = ("p2", "p3", "p4", "p5", "p6")


def make_pipeline(short_side: int, long_side: int) -> Compose:
    """From the pixels ``[H W 3]`` of an image file, BGR, to the model's inputs, as in its test pipeline."""
    import mmdet.datasets.transforms  # noqa: F401, which registers them

    keys = ("ori_shape", "img_shape", "scale_factor")
    return Compose(
        [
            {"type": "mmdet.LoadImageFromNDArray"},
            {"type": "mmdet.Resize", "scale": (long_side, short_side), "keep_ratio": True},
            {"type": "mmdet.PackDetInputs", "meta_keys": keys},
        ]
    )


@torch.no_grad()
def predict(model: torch.nn.Module, pipeline: Compose, image: np.ndarray) -> tuple[Arrays, Arrays]:
    """The detections of an image ``[H W 3]``, BGR, and the stages before them."""
    packed = pipeline({"img": image})
    batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
    heads, rpn = model.roi_head, model.rpn_head
    cascade = isinstance(heads.bbox_head, torch.nn.ModuleList)
    first_box, first_mask = heads.bbox_head, getattr(heads, "mask_head", None)
    if cascade:
        first_box, first_mask = first_box[0], first_mask and first_mask[0]
    with ExitStack() as stack:

        def spy(owner: Any, method: str = "forward", **options: Any) -> Calls:
            return stack.enter_context(spied(owner, method, **options))

        pixels, backbone, neck = spy(model.data_preprocessor), spy(model.backbone), spy(model.neck)
        rpn_outputs, anchors = spy(rpn), spy(rpn.prior_generator, "grid_priors")
        proposals, box_head = spy(rpn, "predict", keep=copy.deepcopy), spy(first_box)
        # The boxes are scaled in place afterwards.
        detected = spy(heads, "predict_bbox", keep=copy.deepcopy)
        mask_head = spy(first_mask) if first_mask is not None else []
        (sample,) = model.test_step(batch)

    found, before = sample.pred_instances, detected[0][1][0]
    detections = {
        "image_size": np.array(sample.img_shape),
        "pixels": channels_last(pixels[0][1]["inputs"][0]),
        "boxes": array(found.bboxes),
        "scores": array(found.scores),
        "labels": array(found.labels) + 1,
    }
    boxes = before.bboxes
    if first_mask is None:  # scaled before suppression
        boxes = boxes * boxes.new_tensor(sample.scale_factor).repeat(2)
    else:
        detections["masks"] = np.packbits(array(found.masks))
        detections["mask_shape"] = np.array(found.masks.shape)

    arrays = {f"backbone/c{i + 2}": channels_last(value[0]) for i, value in enumerate(backbone[0][1])}
    objectness, deltas = rpn_outputs[0][1]
    for number, level in enumerate(LEVELS):
        arrays[f"features/{level}"] = channels_last(neck[0][1][number][0])
        arrays[f"objectness/{level}"] = channels_last(objectness[number][0]).reshape(-1)
        arrays[f"deltas/{level}"] = channels_last(deltas[number][0]).reshape(-1, 4)
        arrays[f"anchors/{level}"] = array(anchors[0][1][number])
    proposed = proposals[0][1][0]
    arrays["proposals/boxes"], arrays["proposals/scores"] = array(proposed.bboxes), array(proposed.scores)
    box_logits, box_deltas = box_head[0][1]
    arrays["box_logits"] = array(box_logits)
    arrays["box_deltas"] = array(box_deltas).reshape(len(box_deltas), -1, 4)
    arrays["detected_boxes"], arrays["detected_labels"] = array(boxes), array(before.labels) + 1
    if mask_head:
        arrays["mask_logits"] = array(of_categories(mask_head[0][1], before.labels))
    return detections, arrays
