"""Average recall of proposals, of whatever category (Detectron2's ``_evaluate_box_proposals``).

One thing differs: there an image without any proposal is left out, with its objects; here these are missed.

Shapes: P proposals and G objects of one image.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from mrcnn_jax.data.source import DataSource
from mrcnn_jax.distributed import hosts
from mrcnn_jax.evaluation.ground_truth import object_area
from mrcnn_jax.inference.proposer import Proposer
from mrcnn_jax.runtime.progress import progress_bar

LIMITS = (100, 1000)  # proposals of an image that count, the best first
# COCO's sizes, by the objects' areas in square pixels, bounds included.
_SIZES = {"": (0, 1e5**2), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e5**2)}
_THRESHOLDS = np.arange(0.5, 0.95 + 1e-5, 0.05).astype(np.float32)  # IoU
_NAMES = {f"AR{size}@{limit}": (limit, areas) for limit in LIMITS for size, areas in _SIZES.items()}


def evaluate_proposals(
    proposer: Proposer, source: DataSource, *, progress: bool = False
) -> dict[str, dict[str, float | None]]:
    """The average recall in percent, as ``metrics["proposals"]["AR@100"]``, for several processes, too.

    "AR@1000" counts 1000 proposals of an image, "ARs@1000" small objects only, then "m" and "l". It is the
    share of objects with a proposal of their own at IoUs .5, .55, ... .95, averaged over these; crowds are
    left out. None where there is no such object.

    Raises ValueError if an image cannot be read or its size differs from its annotation.
    """
    own = range(jax.process_index(), len(source.ids), jax.process_count())
    found: dict[str, list[float]] = {name: [] for name in _NAMES}
    with hosts.fail_together():
        stream = proposer.stream(lambda number: source.read(own[number]).pixels, source.sizes[list(own)])
        hidden = not (progress and hosts.is_main_process())
        for number, proposals in progress_bar(stream, total=len(own), hidden=hidden):
            height, width = source.sizes[own[number]].tolist()
            objects = [item for item in source.annotations(own[number]) if not item.crowd]
            overlaps = best_overlaps(
                proposals.boxes,
                np.array([item.box for item in objects], np.float32).reshape(-1, 4),
                np.array([object_area(item, (height, width)) for item in objects], np.float32),
            )
            for name, values in overlaps.items():
                found[name] += values.tolist()
    shares = hosts.all_gather(found)
    return {
        "proposals": {name: average_recall([x for share in shares for x in share[name]]) for name in _NAMES}
    }


def best_overlaps(
    proposals: Float[np.ndarray, "p 4"], objects: Float[np.ndarray, "g 4"], areas: Float[np.ndarray, " g"]
) -> dict[str, Float[np.ndarray, " _"]]:
    """The IoU of each object with the proposal that it is matched to, 0 without one, by name of the recall.

    Proposals are sorted, the best first. Of all pairs the one with the largest IoU is matched first, and both
    are taken out, until there are no proposals or no objects left.
    """
    iou = _pairwise_iou(proposals, objects)
    overlaps = {}
    for name, (limit, (low, high)) in _NAMES.items():
        overlaps[name] = _match(iou[:limit, (areas >= low) & (areas <= high)])
    return overlaps


def average_recall(overlaps: Sequence[float] | Float[np.ndarray, " n"]) -> float | None:
    """The share of overlaps that reach a threshold, averaged over thresholds, in percent; None if empty."""
    if not len(overlaps):
        return None
    recalls = [np.mean(np.asarray(overlaps, np.float32) >= threshold) for threshold in _THRESHOLDS]
    return round(100 * float(np.mean(recalls)), 3)


def _match(iou: Float[np.ndarray, "p g"]) -> Float[np.ndarray, " g"]:
    iou = iou.copy()
    overlaps = np.zeros(iou.shape[1], np.float32)
    for number in range(min(iou.shape)):
        proposal, target = np.unravel_index(np.argmax(iou), iou.shape)
        overlaps[number] = iou[proposal, target]
        iou[proposal], iou[:, target] = -1, -1
    return overlaps


def _pairwise_iou(a: Float[np.ndarray, "p 4"], b: Float[np.ndarray, "g 4"]) -> Float[np.ndarray, "p g"]:
    corner = np.maximum(a[:, None, :2], b[:, :2])
    sides = np.clip(np.minimum(a[:, None, 2:], b[:, 2:]) - corner, 0, None)
    intersection = sides.prod(axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b - intersection
    return np.where(intersection > 0, intersection / np.where(union > 0, union, 1), np.float32(0))
