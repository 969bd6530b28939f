"""A torchvision detector's training results: targets, losses, gradients and steps, as arrays by name.

Nothing is random: samples are large enough to take every candidate.

Shapes: N objects, A anchors of all levels (by level, row, column, ratio), R regions, Q positive regions of a
batch, M cells per axis of a mask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import FasterRCNN, roi_heads
from torchvision_inference import Arrays, array, channels_last, image_tensor, pack_masks
from torchvision_models import load_seeded

# With these settings sampling takes every candidate, and proposals are few enough to be cheap.
EVERY_CANDIDATE = {
    "rpn_batch_size_per_image": 300_000,  # 800 x 1344 pixels have 268,569 anchors
    "rpn_positive_fraction": 0.5,
    "rpn_post_nms_top_n_train": 300,
    "box_batch_size_per_image": 512,
    "box_positive_fraction": 0.25,
}
SGD = {"momentum": 0.9, "weight_decay": 1e-4}  # without warm-up


@dataclass(frozen=True)
class Example:
    """An image and its N objects; boxes and keypoints in pixels of the image."""

    image: np.ndarray  # [H W 3] uint8
    boxes: np.ndarray  # [N 4] float32, inside the image
    labels: np.ndarray  # [N]
    bitmaps: np.ndarray | None = None  # [N H W] uint8
    box_frames: np.ndarray | None = None  # [N S S] uint8: the masks in the frames of the boxes
    keypoints: np.ndarray | None = None  # [N K 3] float32

    def target(self) -> dict[str, Tensor]:
        """The objects as torchvision takes them; box-frame masks pass its transform untouched."""
        arrays = {
            "boxes": self.boxes,
            "labels": self.labels.astype(np.int64),
            "masks": self.bitmaps,
            "box_frames": self.box_frames,
            "keypoints": self.keypoints,
        }
        return {name: torch.from_numpy(x) for name, x in arrays.items() if x is not None}


Batch = list[Example]


def train(
    model: FasterRCNN,
    outputs: dict[str, Any],
    batches: list[Batch],
    *,
    mask_targets: str,
    steps: int,
    sgd: dict[str, float],
) -> Arrays:
    """Targets, losses and gradients of the first batch, then ``steps`` of SGD over the batches in turn.

    Args:
        model: Built with ``EVERY_CANDIDATE``; its weights are changed.
        outputs: Returned by ``watch(model)``.
        batches: Images that torchvision pads to the same size.
        mask_targets: The kind to train on, "bitmaps" or "box_frames".
        steps: 0 for none.
        sgd: Arguments of ``torch.optim.SGD``.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    arrays: Arrays = {}
    model.train()
    with _mask_targets(outputs, mask_targets) as targets:
        losses = _backward(model, batches[0])
        arrays |= {f"losses/{name}": array(value) for name, value in losses.items()}
        arrays |= {f"gradients/{name}": array(weight.grad) for name, weight in trained.items()}
        arrays |= _targets(outputs)
        if targets:
            arrays |= _mask_stages(outputs, targets)

        load_seeded(model)  # the batch norms' running statistics have changed
        optimizer = torch.optim.SGD(trained.values(), **sgd)
        history: dict[str, list[float]] = {name: [] for name in losses}
        for step in range(steps):
            optimizer.zero_grad()
            for name, value in _backward(model, batches[step % len(batches)]).items():
                history[name].append(value.item())
            optimizer.step()
            for i, boxes in enumerate(outputs["filter_proposals"][0]):
                arrays[f"step_proposals/{step}/{i}"] = array(boxes)
    return arrays | {f"steps/{name}": np.array(values, np.float32) for name, values in history.items()}


def _backward(model: FasterRCNN, batch: Batch) -> dict[str, Tensor]:
    losses = model(
        [image_tensor(example.image) for example in batch], [example.target() for example in batch]
    )
    sum(losses.values()).backward()
    return losses


def _targets(outputs: dict[str, Any]) -> Arrays:
    """The latest batch's pixels and objects, and the targets of its anchors and regions."""
    images, objects = outputs["transform"]
    anchor_labels, anchor_boxes = outputs["assign_targets_to_anchors"]
    proposals, scores = outputs["filter_proposals"]
    boxes, matched, labels, deltas = outputs["select_training_samples"]
    arrays = {
        "pixels": channels_last(images.tensors),
        "image_sizes": np.array(images.image_sizes),
        "anchor_labels": array(torch.stack(anchor_labels)).astype(np.int8),
        "anchor_boxes": array(torch.stack(anchor_boxes)),
    }
    for i, image_objects in enumerate(objects):
        if len(boxes[i]) < len(proposals[i]) + len(image_objects["boxes"]):
            raise SystemExit("a region was not sampled: box_batch_size_per_image is too small")
        arrays |= {
            f"ground_truth/{i}/boxes": array(image_objects["boxes"]),
            f"ground_truth/{i}/labels": array(image_objects["labels"]),
            f"proposals/{i}/boxes": array(proposals[i]),
            f"proposals/{i}/scores": array(scores[i]),
            f"roi_boxes/{i}": array(boxes[i]),
            f"roi_labels/{i}": array(labels[i]),
            f"roi_objects/{i}": array(matched[i]),
            f"roi_gt_boxes/{i}": array(image_objects["boxes"][matched[i]]),
            f"regression_targets/{i}": array(deltas[i]),
        }
        if "masks" in image_objects:
            arrays |= pack_masks(image_objects["masks"].numpy(), f"ground_truth/{i}/")
        if "keypoints" in image_objects:
            arrays[f"ground_truth/{i}/keypoints"] = array(image_objects["keypoints"])
    return arrays


def _mask_stages(outputs: dict[str, Any], targets: dict[str, list[Tensor]]) -> Arrays:
    """Logits ``[Q M M]`` for the true category, targets of each kind, and the loss with each."""
    labels = torch.cat(outputs["select_training_samples"][2])
    labels = labels[labels > 0]
    logits = outputs["mask"][torch.arange(len(labels)), labels]
    arrays = {"mask_logits": array(logits)}
    for kind, values in targets.items():
        target = torch.cat(values)
        arrays[f"mask_targets/{kind}"] = array(target)
        arrays[f"mask_losses/{kind}"] = array(functional.binary_cross_entropy_with_logits(logits, target))
    return arrays


@contextmanager
def _mask_targets(outputs: dict[str, Any], chosen: str) -> Iterator[dict[str, list[Tensor]]]:
    """Makes torchvision train on mask targets of one kind; yields the first batch's targets of each kind.

    Each kind's list has an entry per image.
    """
    project_bitmaps = roi_heads.project_masks_on_boxes
    targets: dict[str, list[Tensor]] = {}
    pending: list[dict[str, Tensor]] = []  # remaining images of this batch

    def project(bitmaps: Tensor, rois: Tensor, matched: Tensor, size: int) -> Tensor:
        if not pending:
            pending.extend(outputs["transform"][1])
        objects = pending.pop(0)
        projected = {"bitmaps": project_bitmaps(bitmaps, rois, matched, size)}
        if "box_frames" in objects:
            frames, boxes = objects["box_frames"][matched], objects["boxes"][matched]
            projected["box_frames"] = crop_box_frames(frames, boxes, rois, size)
        if len(targets.get("bitmaps", [])) < len(outputs["transform"][1]):
            for kind, target in projected.items():
                targets.setdefault(kind, []).append(target)
        return projected[chosen]

    roi_heads.project_masks_on_boxes = project
    try:
        yield targets
    finally:
        roi_heads.project_masks_on_boxes = project_bitmaps


def crop_box_frames(masks: Tensor, boxes: Tensor, rois: Tensor, size: int) -> Tensor:
    """Values ``[N size size]`` of masks ``[N S S]`` over ``boxes`` at the centres of cells of ``rois``.

    Equals ``mrcnn_jax.ops.masks.crop_box_masks``, but is computed from the four cells around each centre.
    """
    cells = masks.shape[-1]
    share = (torch.arange(size) + 0.5) / size
    low, high, inside = [], [], []
    for axis in (1, 0):
        start, stop = boxes[:, axis, None], boxes[:, axis + 2, None]
        at = rois[:, axis, None] + share * (rois[:, axis + 2, None] - rois[:, axis, None])  # [N size]
        inside.append((at >= start) & (at <= stop))
        cell = ((at - start) / (stop - start) * cells - 0.5).clamp(0, cells - 1)
        low.append(cell.floor().long().clamp(max=cells - 2))
        high.append(cell - low[-1])
    (row, column), (down, right) = low, (high[0][:, :, None], high[1][:, None, :])
    n = torch.arange(len(masks))[:, None, None]
    values = masks.float()

    def corner(dy: int, dx: int) -> Tensor:
        return values[n, row[:, :, None] + dy, column[:, None, :] + dx]

    upper = corner(0, 0) * (1 - right) + corner(0, 1) * right
    lower = corner(1, 0) * (1 - right) + corner(1, 1) * right
    both = inside[0][:, :, None] & inside[1][:, None, :]
    return torch.where(both, upper * (1 - down) + lower * down, 0.0)
