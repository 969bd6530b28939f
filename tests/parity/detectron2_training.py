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
from detectron2_inference import (
    Arrays,
    Calls,
    array,
    channels_last,
    first_predictor,
    of_categories,
    proposal_arrays,
    spied,
)
from seeded import Scene

# Enough to sample every anchor of an 800x1344 image (268,569) and all of the few proposals and objects.
EVERY_CANDIDATE = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 300_000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 300,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
}
SGD = {"momentum": 0.9, "weight_decay": 1e-4}  # without warm-up; no norm layer is trained
BATCHES, BATCH_SIZE = 2, 2

Example = dict[str, Any]  # as a model takes it; if read from a file, also its name and image id


def training(predictor: Any, args: argparse.Namespace) -> Arrays:
    """Training results on the images that the arguments name."""
    batches = read_batches(predictor, args)
    sgd = SGD | {"lr": args.learning_rate}
    arrays = settings(predictor.cfg, mask_targets=args.mask_targets, sgd=sgd)
    arrays["batches"] = np.array([[example["file_name"] for example in batch] for batch in batches])
    arrays["batch_ids"] = np.array([[example["image_id"] for example in batch] for batch in batches])
    return arrays | train(predictor.model, batches, steps=args.steps, sgd=sgd)


def train(
    model: torch.nn.Module, batches: list[list[Example]], *, steps: int, sgd: dict[str, float]
) -> Arrays:
    """Batch 0's losses, gradients and their inputs, and the losses of all steps."""
    from detectron2.utils.events import EventStorage

    model.train()
    # With as many samples as candidates, only their order is random; this keeps it as it is.
    with EventStorage(), mock.patch("torch.randperm", torch.arange):
        arrays = first_batch(model, batches[0])
        if steps:
            arrays |= take_steps(model, batches, steps, sgd)
    return arrays


def settings(config: Any, *, mask_targets: str, sgd: dict[str, float]) -> Arrays:
    values = {
        "rpn_batch_size_per_image": config.MODEL.RPN.BATCH_SIZE_PER_IMAGE,
        "roi_batch_size_per_image": config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
        "pre_nms_topk": config.MODEL.RPN.PRE_NMS_TOPK_TRAIN,
        "post_nms_topk": config.MODEL.RPN.POST_NMS_TOPK_TRAIN,
        "mask_targets": mask_targets,
        "short_side": config.INPUT.MIN_SIZE_TEST,
        "long_side": config.INPUT.MAX_SIZE_TEST,
        "learning_rate": sgd["lr"],
        "momentum": sgd["momentum"],
        "weight_decay": sgd["weight_decay"],
    }
    return {f"settings/{name}": np.array(value) for name, value in values.items()}


class BoxFrameMasks:
    """Masks ``[N S S]`` in the frames of boxes ``[N 4]``, with the methods that training calls on masks."""

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

        Half is counted as half despite rounding.

        The mask is interpolated bilinearly between the centres of its cells, keeps the outermost value up to
        the border of its frame, and is 0 beyond.
        """
        rows, columns = (self._weights(boxes, axis, size) for axis in (1, 0))
        return rows @ self.grids.float() @ columns.transpose(1, 2) >= 0.499

    def _weights(self, boxes: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """Interpolation weights along an axis, of each frame cell for each box cell: ``[N size S]``."""
        low, high = self.boxes[:, axis, None], self.boxes[:, axis + 2, None]
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        position = first + (torch.arange(size) + 0.5) / size * (last - first)
        cells = self.grids.shape[-1]
        cell = ((position - low) / (high - low) * cells - 0.5).clamp(0, cells - 1)
        weights = (1 - (cell[..., None] - torch.arange(cells)).abs()).clamp(min=0)
        return weights * ((position >= low) & (position <= high))[..., None]


def read_batches(predictor: Any, args: argparse.Namespace) -> list[list[Example]]:
    """The first batches of images that are padded to the same size and have objects but no crowds.

    Detectron2 leaves crowds out of training, unlike this project.
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
    from detectron2.data import detection_utils

    image = detection_utils.read_image(record["file_name"], format=predictor.input_format)
    example = make_example(predictor, image, record["annotations"], mask_targets, frames)
    return example | {"file_name": Path(record["file_name"]).name, "image_id": record["image_id"]}


def scene_example(predictor: Any, scene: Scene) -> Example:
    """A scene as an example for a model with masks, or with keypoints of a single category."""
    from detectron2.structures import BoxMode

    annotations: list[dict[str, Any]] = []
    for row, box in enumerate(scene.boxes):
        annotations.append(
            {
                "id": row,
                "bbox": box.tolist(),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": int(scene.labels[row]) - 1,
            }
        )
        if predictor.cfg.MODEL.KEYPOINT_ON:
            offset = np.array([0.5, 0.5, 0])  # as Detectron2 adds when it loads COCO files
            annotations[-1] |= {"category_id": 0, "keypoints": (scene.keypoints[row] + offset).ravel()}
    frames = None if predictor.cfg.MODEL.KEYPOINT_ON else {str(row): m for row, m in enumerate(scene.masks)}
    return make_example(predictor, scene.image[..., ::-1], annotations, "box_frames", frames)


def make_example(
    predictor: Any, image: np.ndarray, annotations: list[dict[str, Any]], mask_targets: str, frames: Any
) -> Example:
    """An image and its objects, from large to small, prepared as in Detectron2's training but not flipped."""
    from detectron2.data import detection_utils

    resize = predictor.aug.get_transform(image)
    image = resize.apply_image(image)
    unused = "segmentation" if predictor.cfg.MODEL.KEYPOINT_ON else "keypoints"
    for item in annotations:
        item.pop(unused, None)
        detection_utils.transform_instance_annotations(item, [resize], image.shape[:2])
    objects = detection_utils.annotations_to_instances(annotations, image.shape[:2])
    objects.gt_ids = torch.tensor([item["id"] for item in annotations])
    objects = detection_utils.filter_empty_instances(objects)
    objects = objects[objects.gt_boxes.area().argsort(descending=True, stable=True)]
    # Detectron2 copies fields whose name begins with "gt_" to the regions matched with an object.
    if objects.has("gt_masks"):
        objects.gt_polygons = objects.gt_masks
    if frames is not None:
        grids = torch.stack([torch.from_numpy(frames[str(key)]) for key in objects.gt_ids.tolist()])
        objects.gt_box_frames = BoxFrameMasks(grids, objects.gt_boxes.tensor)
    if not predictor.cfg.MODEL.KEYPOINT_ON:
        objects.gt_masks = objects.get(f"gt_{mask_targets}")
    return {
        "image": torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "instances": objects,
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

    arrays = {f"losses/{loss_name(name)}": array(value) for name, value in losses.items()}
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
    """Image j's objects, proposals and regions, and the regions' targets."""
    if len(rois) < len(proposals) + len(objects):
        raise SystemExit("a region was not sampled: MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE is too small")
    boxes, gt_boxes = rois.proposal_boxes.tensor, rois.gt_boxes.tensor
    transform = first_predictor(heads).box2box_transform
    arrays = {
        f"ground_truth/{j}/boxes": array(objects.gt_boxes.tensor),
        f"ground_truth/{j}/labels": array(objects.gt_classes) + 1,
        f"ground_truth/{j}/ids": array(objects.gt_ids),
        f"roi_boxes/{j}": array(boxes),
        f"roi_labels/{j}": (array(rois.gt_classes) + 1) % (heads.num_classes + 1),
        f"roi_objects/{j}": array((rois.gt_ids[:, None] == objects.gt_ids).int().argmax(dim=1)),
        f"roi_gt_boxes/{j}": array(gt_boxes),
        f"regression_targets/{j}": array(transform.get_deltas(boxes, gt_boxes)),
    }
    if objects.has("gt_keypoints"):
        arrays[f"ground_truth/{j}/keypoints"] = array(objects.gt_keypoints.tensor)
    return arrays | proposal_arrays(proposals, f"proposals/{j}")


def mask_arrays(heads: torch.nn.Module, logits: torch.Tensor, rois: list[Any]) -> Arrays:
    """The true category's logits, of ``[P categories M M]``, and targets and loss for each kind of mask."""
    from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
    from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals

    positive, _ = select_foreground_proposals(rois, heads.num_classes)
    classes = torch.cat([regions.gt_classes for regions in positive])
    arrays = {"mask_logits": array(of_categories(logits, classes))}
    for kind in ("polygons", "box_frames"):
        if not positive[0].has(f"gt_{kind}"):
            continue
        cropped = []
        for regions in positive:
            regions.gt_masks = regions.get(f"gt_{kind}")
            cropped.append(regions.gt_masks.crop_and_resize(regions.proposal_boxes.tensor, logits.shape[-1]))
        arrays[f"mask_targets/{kind}"] = array(torch.cat(cropped))
        arrays[f"mask_losses/{kind}"] = array(mask_rcnn_loss(logits, positive))
    return arrays


def take_steps(
    model: torch.nn.Module, batches: list[list[Example]], count: int, sgd: dict[str, float]
) -> Arrays:
    """The losses at each SGD step, before its update, and the RPN's proposals for them."""
    arrays: Arrays = {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, **sgd)
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
    return arrays | {
        f"steps/{loss_name(name)}": np.array(values, np.float32) for name, values in history.items()
    }


def loss_name(name: str) -> str:
    """Detectron2's name; those of a cascade's first head are called as without further ones."""
    return name.removesuffix("_stage0")
