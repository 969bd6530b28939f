"""Weights and images made by formulas, the same for torch and JAX, so that no file needs to store them.

Uses only NumPy, and only functions of it that give the same bits everywhere.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Extra factors for values, besides the rule that keeps a layer's outputs near 1 (see ``seeded``).
_GAINS = {
    r"\.bn2\.(weight|bias)$": 0.25,  # in every residual branch, so that their sum stays near 1, too
    r"downsample\.0\.weight$": 0.6,
    r"inner_blocks\.\d\.0\.weight$": 0.15,  # its input has thousands of correlated channels
    r"rpn\.head\.cls_logits\.weight$": 1.3,  # objectness of several units
    r"rpn\.head\.bbox_pred\.weight$": 0.1,  # anchors moved by some tenths of their size
    r"cls_score\.weight$": 0.7,
    r"box_head\.\d\.1\.weight$": 0.93,
    r"mask_head\.\d\.1\.weight$": 0.75,
    r"mask_fcn_logits\.weight$": 1.3,
}
_DECONVOLUTIONS = ("conv5_mask.weight", "kps_score_lowres.weight")


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of torchvision's detectors, by torchvision's name and shape (in, out, ... or out, in, ...).

    It depends only on the name and the shape. Layer outputs stay near 1, and there are many detections:

    - What all positions have in common must not hide their differences, so an output's weights sum to 0,
      except in the first layer, which sees pixels.
    - Background gets a head start over K classes, or every region would be a detection. With it, tens of 1000
      regions exceed a score of .05.
    """
    rng = np.random.default_rng(list(name.encode()))
    values = rng.random(shape, dtype=np.float32) - np.float32(0.5)
    gain = next((gain for pattern, gain in _GAINS.items() if re.search(pattern, name)), 1.0)
    if len(shape) > 1:
        transposed = name.endswith(_DECONVOLUTIONS)
        if shape[1] > 3:
            values -= values.mean(axis=0 if transposed else tuple(range(1, len(shape))), keepdims=True)
        # An output cell of a stride-2 deconvolution sees a quarter of the kernel.
        fan_in = shape[0] * shape[2] * shape[3] / 4 if transposed else math.prod(shape[1:])
        gain *= math.sqrt(36 / fan_in)  # 12 gives the uniform distribution variance 1; 3 offsets ReLU
    elif name.endswith(("weight", "running_var")):
        values += np.float32(1)
    elif name.endswith("cls_score.bias"):
        values[0] += np.float32(5.6 + 1.3 * math.log(shape[0]))
    return values * np.float32(gain)


def factor(name: str, gains: Iterable[str]) -> np.float32:
    """The product of the factors of ``gains``, "PATTERN=FACTOR", whose patterns are found in the name."""
    pairs = (gain.rsplit("=", 1) for gain in gains)
    return np.float32(math.prod(float(value) for pattern, value in pairs if re.search(pattern, name)))


def thin(array: np.ndarray) -> np.ndarray:
    """What a fixture keeps of an array: all, or every 37th value of large floats, flattened."""
    return array.ravel()[::37] if array.size > 1000 and array.dtype.kind == "f" else array


@dataclass(frozen=True)
class Scene:
    """An image and its N objects; boxes and keypoints in pixels of the image."""

    image: np.ndarray  # [H W 3] uint8
    boxes: np.ndarray  # [N 4] float32, from large to small
    labels: np.ndarray  # [N] int32, 1 to ``CLASSES``
    masks: np.ndarray  # [N S S] uint8 0 or 1 in the frame of the box: ellipses and rectangles
    keypoints: np.ndarray  # [N KEYPOINTS 3] float32: x, y, visibility 0 to 2

    def bitmaps(self) -> np.ndarray:
        """The masks ``[N H W]``: each pixel has the value of the cell in which its centre lies."""
        height, width = self.image.shape[:2]
        grid = self.masks.shape[-1]
        bitmaps = np.zeros((len(self.boxes), height, width), np.uint8)
        for bitmap, mask, (x1, y1, x2, y2) in zip(bitmaps, self.masks, self.boxes, strict=True):
            row = np.floor((np.arange(height) + 0.5 - y1) / (y2 - y1) * grid).astype(int)
            column = np.floor((np.arange(width) + 0.5 - x1) / (x2 - x1) * grid).astype(int)
            padded = np.pad(mask, 1)  # cells outside the box: 0 and grid + 1
            bitmap[:] = padded[np.ix_(np.clip(row + 1, 0, grid + 1), np.clip(column + 1, 0, grid + 1))]
        return bitmaps


CLASSES = 5  # not counting background
KEYPOINTS = 5


def make_scene(seed: int, height: int, width: int, *, grid: int = 56) -> Scene:
    """Three to five objects, each in its own colour, on a pattern of squares; masks have grid^2 cells."""
    rng = np.random.default_rng([seed, height, width])
    squares = rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    image = squares.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    image += rng.integers(0, 56, image.shape, dtype=np.uint8)

    count = 3 + seed % 3
    size = rng.integers(12, min(height, width) * 3 // 4, (count, 2))
    size = size[np.argsort(-size.prod(axis=1), kind="stable")]
    corner = rng.integers(0, (width, height) - size + 1)
    quarter = rng.integers(0, 4, (count, 2)) / 4  # boxes rarely lie on whole pixels
    boxes = np.concatenate([corner + quarter * (corner + size < (width, height)), corner + size], axis=1)

    centre = np.linspace(-1, 1, 2 * grid + 1)[1::2]
    ellipse = centre[:, None] ** 2 + centre**2 <= 1
    bar = (abs(centre[:, None]) <= 0.5) | (centre < 0)
    masks = np.stack([ellipse if row % 2 == 0 else bar for row in range(count)]).astype(np.uint8)
    # In the box or slightly beyond it, so that some points are outside.
    at = rng.integers(-1, 18, (count, KEYPOINTS, 2)) / 16
    visibility = rng.integers(0, 3, (count, KEYPOINTS, 1))
    points = boxes[:, None, :2] + at * (boxes[:, None, 2:] - boxes[:, None, :2])
    scene = Scene(
        image=image,
        boxes=boxes.astype(np.float32),
        labels=rng.integers(1, CLASSES + 1, count, dtype=np.int32),
        masks=masks,
        keypoints=(np.concatenate([points, visibility], axis=-1) * (visibility > 0)).astype(np.float32),
    )
    for bitmap, colour in zip(scene.bitmaps(), rng.integers(0, 256, (count, 3), dtype=np.uint8), strict=True):
        image[bitmap > 0] = colour
    return scene


# At a short side of 96 these are padded to 96x128 and 160x96 pixels; the training scenes all to 96x128.
DETECTED = (make_scene(0, 72, 96), make_scene(1, 100, 64))
TRAINED = ((make_scene(0, 72, 96), make_scene(2, 80, 100)), (make_scene(4, 72, 90), make_scene(5, 60, 80)))
# For models that do not pad, with mask targets thresholded at one half: each batch's images have one size,
# 96x128 and 96x120, and the 14 or 28 cells of an object's box never lie halfway between those of its mask, as
# they would for an even multiple of 14. The seeds were chosen so that rounding decides little: few units near
# 0 before a ReLU, few regions near an IoU of .35.
TRAINED_ALIKE = (
    (make_scene(33, 72, 96, grid=42), make_scene(38, 60, 80, grid=42)),
    (make_scene(8, 80, 100, grid=42), make_scene(10, 72, 90, grid=42)),
)

# Settings of test-time augmentation, by our names. No long side is limited.
AUGMENTED = {"scales": (64, 96, 128), "flip": True}
