"""Differences between two systems' results, as (name, value, bound): see ``docs/fidelity.md``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mrcnn_jax.inference.results import Result

Arrays = Mapping[str, np.ndarray]
Row = tuple[str, float, float | None]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest value; infinite if the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def absolute(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; infinite if the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found - wanted).max(initial=0.0))


def stages(found: Arrays, theirs: Arrays) -> Iterator[Row]:
    """Differences in the stages of one image."""
    yield "pixels", absolute(found["pixels"], theirs["pixels"]), 1e-5
    for kind, bound in (("features", 1e-4), ("objectness", 1e-4), ("deltas", 1e-4)):
        names = [name for name in theirs if name.startswith(f"{kind}/")]
        yield kind, max(relative(found[name], theirs[name]) for name in names), bound
    names = [name for name in theirs if name.startswith("anchors/")]
    yield "anchors", max(absolute(found[name], theirs[name]) for name in names), 0.0
    yield from _proposals(found["proposals/boxes"], theirs["proposals/boxes"])
    for name in ("box_logits", "box_deltas", "mask_logits", "keypoint_logits"):
        if name in theirs:
            yield name, relative(found[name], theirs[name]), 1e-4


def _proposals(found: np.ndarray, wanted: np.ndarray) -> Iterator[Row]:
    """How many of their boxes have none of ours within 0.01 pixels, and the length of the common prefix."""
    distance = np.abs(found[None] - wanted[:, None]).max(axis=-1)
    yield f"proposals (of {len(wanted)}) missing in ours", float((distance.min(axis=1) > 0.01).sum()), None
    same = min(len(found), len(wanted))
    first = np.flatnonzero(np.abs(found[:same] - wanted[:same]).max(axis=1) > 0.01)
    yield "proposals in the same order", float(first[0] if len(first) else same), None


@dataclass
class Detections:
    """Accumulated differences in the detections of several images."""

    images: int = 0
    count: int = 0
    swapped: int = 0  # detections that do not match the one at the same rank
    boxes: float = 0.0
    scores: float = 0.0
    pixels: int = 0  # inside their masks
    wrong_pixels: int = 0
    rounded: int = 0  # masks whose boxes round to different pixels
    wrong_rounded: int = 0  # differing pixels in those masks
    keypoints: list[float] = field(default_factory=list)  # distances in pixels
    tied: int = 0  # keypoints at the other of two equal peaks, not in ``keypoints``
    keypoint_scores: float = 0.0

    def add(self, found: Result, theirs: Arrays, *, paste: str) -> None:
        """Adds an image's detections, pasted by the rule ``paste``; values are compared where rank, label and
        place agree."""
        self.images += 1
        self.count += len(theirs["scores"])
        same = min(len(found), len(theirs["scores"]))
        labels = found.labels[:same] == theirs["labels"][:same]
        close = np.abs(found.boxes[:same] - theirs["boxes"][:same]).max(axis=1, initial=0.0) < 1
        pairs = np.flatnonzero(labels & close)
        self.swapped += max(len(found), len(theirs["scores"])) - len(pairs)
        self.boxes = max(self.boxes, absolute(found.boxes[pairs], theirs["boxes"][pairs]))
        self.scores = max(self.scores, absolute(found.scores[pairs], theirs["scores"][pairs]))
        if "masks" in theirs:
            assert found.masks is not None
            shape = tuple(theirs["mask_shape"])
            masks = np.unpackbits(theirs["masks"], count=int(np.prod(shape))).reshape(shape).astype(bool)
            wrong = (found.masks[pairs] != masks[pairs]).sum(axis=(1, 2))
            rounded = torchvision_boxes(found.boxes[pairs]) != torchvision_boxes(theirs["boxes"][pairs])
            rounded = rounded.any(axis=1) & (paste == "torchvision")
            self.rounded += int(rounded.sum())
            self.wrong_rounded += int(wrong[rounded].sum())
            self.pixels += int(masks[pairs][~rounded].sum())
            self.wrong_pixels += int(wrong[~rounded].sum())
        if "keypoints" in theirs:
            assert found.keypoints is not None
            offset = np.abs(found.keypoints[pairs, :, :2] - theirs["keypoints"][pairs, :, :2]).max(axis=-1)
            scores = theirs.get("keypoint_scores", theirs["keypoints"][..., 2])[pairs]
            difference = np.abs(found.keypoints[pairs, :, 2] - scores) / np.abs(scores).max(initial=1e-12)
            # Far apart, but equally high: the map has two peaks, and rounding decides.
            tied = (offset > 0.1) & (difference < 1e-4)
            self.tied += int(tied.sum())
            self.keypoints += offset[~tied].tolist()
            self.keypoint_scores = max(self.keypoint_scores, float(difference.max(initial=0.0)))

    def rows(self) -> Iterator[tuple[str, float, float | None, str]]:
        """The differences as (name, value, bound, note)."""
        yield "detections that differ in place or label", self.swapped, 0, f"of {self.count}"
        yield "boxes (pixels)", self.boxes, 0.01, ""
        yield "scores", self.scores, 1e-4, ""
        if self.pixels:
            share = self.wrong_pixels / self.pixels
            yield "mask pixels that differ", share, 1e-3, f"{self.wrong_pixels} of {self.pixels}"
            if self.rounded:
                note = f"{self.wrong_rounded} pixels differ"
                yield "masks whose boxes round to other pixels", self.rounded, None, note
        if self.keypoints:
            far = sum(distance > 0.1 for distance in self.keypoints)
            near = max((distance for distance in self.keypoints if distance <= 0.1), default=0.0)
            yield "keypoints off by more than 0.1 pixels", far, 0, f"of {len(self.keypoints)}"
            yield "keypoints at the other of two equal peaks", self.tied, None, ""
            yield "keypoints, the largest of the others", near, 0.1, ""
            yield "keypoint scores", self.keypoint_scores, 1e-4, ""


def torchvision_boxes(boxes: np.ndarray) -> np.ndarray:
    """The integer boxes into which torchvision pastes masks of 28 cells (``expand_boxes``)."""
    centre, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = half * np.float32(30 / 28)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64)


def targets(found: Arrays, theirs: Arrays) -> Iterator[Row]:
    """Differences in a batch's anchor and region targets; ``found`` has all anchors of all images."""
    labels = found["anchor_labels"][found["in_image"]].reshape(theirs["anchor_labels"].shape)
    yield "anchors with another label", float((labels != theirs["anchor_labels"]).sum()), 0
    for image in range(len(labels)):
        wanted = theirs[f"roi_boxes/{image}"]
        sampled = found["roi_labels"][image] >= 0
        boxes, roi_labels = found["roi_boxes"][image][sampled], found["roi_labels"][image][sampled]
        nearest = np.abs(boxes[None] - wanted[:, None]).max(axis=-1)
        match = nearest.argmin(axis=1)
        differ = (nearest.min(axis=1) > 0.01) | (roi_labels[match] != theirs[f"roi_labels/{image}"])
        yield f"regions of image {image} (of {len(wanted)}) that differ", float(differ.sum()), 0


def gradients(found: Arrays, wanted: Arrays) -> list[tuple[str, float]]:
    """Each gradient's relative difference, by norm, the largest first.

    Norms below a millionth of the largest count as that: the gradient of a bias before a softmax is rounding.
    """
    least = 1e-6 * max(float(np.linalg.norm(value)) for value in wanted.values())
    shares = [
        (name, float(np.linalg.norm(found[name] - value) / max(float(np.linalg.norm(value)), least)))
        for name, value in wanted.items()
        if name in found
    ]
    return sorted(shares, key=lambda pair: -pair[1])


def mask_targets(theirs: Arrays, *, own: str) -> Iterator[Row]:
    """How far targets from box-frame masks are from the peer's own, and how that changes its loss."""
    a = theirs[f"mask_targets/{own}"] >= 0.5
    b = theirs["mask_targets/box_frames"] >= 0.5
    union = (a | b).sum(axis=(1, 2))
    iou = ((a & b).sum(axis=(1, 2)) / np.maximum(union, 1))[union > 0]
    yield f"mask targets, 1 - mean IoU with {own}", float(1 - iou.mean()), None
    loss, other = float(theirs[f"mask_losses/{own}"]), float(theirs["mask_losses/box_frames"])
    yield f"mask loss, difference from {own}", abs(other - loss) / abs(loss), 0.01
