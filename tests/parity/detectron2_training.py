"""What a Detectron2 model computes in training (keys: ``detectron2_peer.py``)."""

import argparse
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2_inference import Arrays, Calls, array, channels_last, proposal_arrays, spied

# Enough to take every anchor of an 800x1344 image (268,569) and every one of the few proposals and objects.
EVERY_CANDIDATE = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 300_000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 300,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
}
# No warm-up, and no norm layer is trained. Steps amplify rounding: in ten of them, one thread against two
# differ by 3e-6 of a loss at this rate, and by 2e-4 at ten times the rate.
SGD = {"lr": 2e-5, "momentum": 0.9, "weight_decay": 1e-4}
BATCHES, BATCH_SIZE = 2, 2

Example = dict[str, Any]  # as a model takes it, and the image's file name and id


def training(predictor: Any, args: argparse.Namespace) -> Arrays:
    """Losses, gradients and what they rest on for batch 0, and the losses of the steps."""
    from detectron2.utils.events import EventStorage

    model = predictor.model.train()
    batches = read_batches(predictor, args)
    arrays = {f"settings/{name}": np.array(value) for name, value in settings(predictor.cfg, args).items()}
    arrays["batches"] = np.array([[example["file_name"] for example in batch] for batch in batches])
    arrays["batch_ids"] = np.array([[example["image_id"] for example in batch] for batch in batches])
    # With as many samples as candidates only their order is drawn at random: it is left as it is.
    with EventStorage(), mock.patch("torch.randperm", torch.arange):
        arrays |= first_batch(model, batches[0])
        if args.steps:
            arrays |= take_steps(model, batches, args.steps)
    return arrays


def settings(config: Any, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "rpn_batch_size_per_image": config.MODEL.RPN.BATCH_SIZE_PER_IMAGE,
        "roi_batch_size_per_image": config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
        "pre_nms_topk": config.MODEL.RPN.PRE_NMS_TOPK_TRAIN,
        "post_nms_topk": config.MODEL.RPN.POST_NMS_TOPK_TRAIN,
        "mask_targets": args.mask_targets,
        "short_side": args.short_side,
        "long_side": args.long_side,
        "learning_rate": SGD["lr"],
        "momentum": SGD["momentum"],
        "weight_decay": SGD["weight_decay"],
    }


class BoxFrameMasks:
    """Masks ``[N S S]`` in the frames of boxes ``[N 4]``, with what training asks of masks."""

    def __init__(self, grids: torch.Tensor, boxes: torch.Tensor) -> None:
        self.grids, self.boxes = grids, boxes

    def __len__(self) -> int:
        return len(self.grids)

    def __getitem__(self, rows: torch.Tensor) -> "BoxFrameMasks":
        return BoxFrameMasks(self.grids[rows], self.boxes[rows])

    def to(self, *_: Any, **__: Any) -> "BoxFrameMasks":
        return self

    def crop_and_resize(self, boxes: torch.Tensor, size: int) -> torch.Tensor:
        """Whether each mask is half or more at the centres of its box's cells: bool ``[N size size]``.

        Half but for rounding is half.

        It is interpolated bilinearly between the centres of its own cells, up to the border of its frame
        keeps the outermost value, and is 0 beyond.
        """
        rows, columns = (self._weights(boxes, axis, size) for axis in (1, 0))
        return rows @ self.grids.float() @ columns.transpose(1, 2) >= 0.499

    def _weights(self, boxes: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """What each cell of a frame, along an axis, has in each cell of a box: ``[N size S]``."""
        low, high = self.boxes[:, axis, None], self.boxes[:, axis + 2, None]
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        position = first + (torch.arange(size) + 0.5) / size * (last - first)
        cells = self.grids.shape[-1]
        cell = ((position - low) / (high - low) * cells - 0.5).clamp(0, cells - 1)
        weights = (1 - (cell[..., None] - torch.arange(cells)).abs()).clamp(min=0)
        return weights * ((position >= low) & (position <= high))[..., None]


def read_batches(predictor: Any, args: argparse.Namespace) -> list[list[Example]]:
    """The first batches of images that are padded to one size and have objects, but no crowds.

    Detectron2 leaves crowds out of training, others do not.
    """
    from detectron2.data.datasets import load_coco_json

    keypoints = predictor.cfg.MODEL.KEYPOINT_ON
    annotations = args.keypoints if keypoints else args.annotations
    if annotations is None:
        raise SystemExit(f"--train of {args.model} needs --{'keypoints' if keypoints else 'annotations'}")
    frames = np.load(args.box_frames) if args.box_frames else None
    sizes: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for record in load_coco_json(str(annotations), str(args.images), "coco_parity", ["id"]):
        objects = record["annotations"]
        if not objects or any(item["iscrowd"] for item in objects):
            continue
        if keypoints and not any(any(item["keypoints"][2::3]) for item in objects):
            continue
        sizes.setdefault(padded_size(predictor, record), []).append(record)
    records = max(sizes.values(), key=len)[: BATCHES * BATCH_SIZE]
    if len(records) < BATCHES * BATCH_SIZE:
        raise SystemExit(
            f"{len(records)} images of one padded size have objects and no crowds; "
            f"{BATCHES * BATCH_SIZE} are needed"
        )
    examples = [read_example(predictor, record, args.mask_targets, frames) for record in records]
    return [examples[start : start + BATCH_SIZE] for start in range(0, len(examples), BATCH_SIZE)]


def padded_size(predictor: Any, record: dict[str, Any]) -> tuple[int, ...]:
    """Height and width after resizing and padding."""
    resize = predictor.aug
    sides = resize.get_output_shape(
        record["height"], record["width"], resize.short_edge_length[0], resize.max_size
    )
    multiple = max(predictor.model.backbone.size_divisibility, 1)
    return tuple(math.ceil(side / multiple) * multiple for side in sides)


def read_example(predictor: Any, record: dict[str, Any], mask_targets: str, frames: Any) -> Example:
    """An image with its objects from large to small, read as Detectron2 does in training, but not flipped."""
    from detectron2.data import detection_utils

    image = detection_utils.read_image(record["file_name"], format=predictor.input_format)
    resize = predictor.aug.get_transform(image)
    image = resize.apply_image(image)
    unused = "segmentation" if predictor.cfg.MODEL.KEYPOINT_ON else "keypoints"
    for item in record["annotations"]:
        item.pop(unused, None)
        detection_utils.transform_instance_annotations(item, [resize], image.shape[:2])
    objects = detection_utils.annotations_to_instances(record["annotations"], image.shape[:2])
    objects.gt_ids = torch.tensor([item["id"] for item in record["annotations"]])
    objects = detection_utils.filter_empty_instances(objects)
    objects = objects[objects.gt_boxes.area().argsort(descending=True, stable=True)]
    if objects.has("gt_masks"):
        # Fields whose name begins with "gt_" are handed on to the regions that are matched with an object.
        objects.gt_polygons = objects.gt_masks
        if frames is not None:
            grids = torch.stack([torch.from_numpy(frames[str(key)]) for key in objects.gt_ids.tolist()])
            objects.gt_box_frames = BoxFrameMasks(grids, objects.gt_boxes.tensor)
        objects.gt_masks = objects.get(f"gt_{mask_targets}")
    return {
        "image": torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "instances": objects,
        "file_name": Path(record["file_name"]).name,
        "image_id": record["image_id"],
    }


def first_batch(model: torch.nn.Module, batch: list[Example]) -> Arrays:
    """A batch's targets, losses and gradients."""
    rpn, heads = model.proposal_generator, model.roi_heads
    with ExitStack() as stack:

        def spy(owner: torch.nn.Module, method: str) -> Calls:
            return stack.enter_context(spied(owner, method))

        backbone, proposals = spy(model.backbone, "forward"), spy(rpn, "forward")
        anchors, regions = spy(rpn, "label_and_sample_anchors"), spy(heads, "label_and_sample_proposals")
        mask_head = spy(heads.mask_head.predictor, "forward") if heads.mask_on else []
        losses = model(batch)
    sum(losses.values()).backward()

    arrays = {f"losses/{name}": array(value) for name, value in losses.items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            arrays[f"gradients/{name}"] = array(parameter.grad)
    anchor_labels, anchor_boxes = (torch.stack(tensors) for tensors in anchors[0][1])
    if anchor_labels.shape[1] > rpn.batch_size_per_image:
        raise SystemExit("an anchor was not sampled: MODEL.RPN.BATCH_SIZE_PER_IMAGE is too small")
    arrays |= {
        "pixels": channels_last(backbone[0][0][0]),
        "image_sizes": np.array([example["image"].shape[1:] for example in batch]),
        "anchor_labels": array(anchor_labels),
        "anchor_boxes": array(anchor_boxes),
    }
    for j, (example, found, rois) in enumerate(zip(batch, proposals[0][1][0], regions[0][1], strict=True)):
        arrays |= targets(heads, example["instances"], found, rois, j)
    if mask_head:
        arrays |= mask_arrays(heads, mask_head[0][1], regions[0][1])
    return arrays


def targets(heads: torch.nn.Module, objects: Any, proposals: Any, rois: Any, j: int) -> Arrays:
    """Image j's objects, proposals and regions, and what these are to become."""
    if len(rois) < len(proposals) + len(objects):
        raise SystemExit("a region was not sampled: MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE is too small")
    boxes, gt_boxes = rois.proposal_boxes.tensor, rois.gt_boxes.tensor
    arrays = {
        f"ground_truth/{j}/boxes": array(objects.gt_boxes.tensor),
        f"ground_truth/{j}/labels": array(objects.gt_classes) + 1,
        f"ground_truth/{j}/ids": array(objects.gt_ids),
        f"roi_boxes/{j}": array(boxes),
        f"roi_labels/{j}": (array(rois.gt_classes) + 1) % (heads.num_classes + 1),
        f"roi_objects/{j}": array((rois.gt_ids[:, None] == objects.gt_ids).int().argmax(dim=1)),
        f"roi_gt_boxes/{j}": array(gt_boxes),
        f"regression_targets/{j}": array(heads.box_predictor.box2box_transform.get_deltas(boxes, gt_boxes)),
    }
    if objects.has("gt_keypoints"):
        arrays[f"ground_truth/{j}/keypoints"] = array(objects.gt_keypoints.tensor)
    return arrays | proposal_arrays(proposals, f"proposals/{j}")


def mask_arrays(heads: torch.nn.Module, logits: torch.Tensor, rois: list[Any]) -> Arrays:
    """The true category's of logits ``[P categories M M]``, and targets and loss by each kind of masks."""
    from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
    from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals

    positive, _ = select_foreground_proposals(rois, heads.num_classes)
    classes = torch.cat([regions.gt_classes for regions in positive])
    arrays = {"mask_logits": array(logits[torch.arange(len(logits)), classes])}
    for kind in ("polygons", "box_frames"):
        if not positive[0].has(f"gt_{kind}"):
            continue
        made = []
        for regions in positive:
            regions.gt_masks = regions.get(f"gt_{kind}")
            made.append(regions.gt_masks.crop_and_resize(regions.proposal_boxes.tensor, logits.shape[-1]))
        arrays[f"mask_targets/{kind}"] = array(torch.cat(made))
        arrays[f"mask_losses/{kind}"] = array(mask_rcnn_loss(logits, positive))
    return arrays


def take_steps(model: torch.nn.Module, batches: list[list[Example]], count: int) -> Arrays:
    """The losses of each step of SGD, before it is taken, and what the RPN proposed for them."""
    arrays: Arrays = {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, **SGD)
    history: dict[str, list[float]] = {}
    for step in range(count):
        start = time.perf_counter()
        with spied(model.proposal_generator, "forward") as proposals:
            losses = model(batches[step % len(batches)])
        for image, found in enumerate(proposals[0][1][0]):
            arrays[f"step_proposals/{step}/{image}"] = array(found.proposal_boxes.tensor)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        for name, value in losses.items():
            history.setdefault(name, []).append(value.item())
        shown = ", ".join(f"{name} {values[-1]:.4f}" for name, values in history.items())
        print(f"step {step}: {shown}, {time.perf_counter() - start:.1f} s")
    return arrays | {f"steps/{name}": np.array(values, np.float32) for name, values in history.items()}
