"""Sizes of resized images, and resizing with the bits of Detectron2, torchvision and MMDetection."""

from typing import Any

import numpy as np

Size = tuple[int, ...]  # height, width


def resized_shape(size: Size, short_side: int, long_side: int, rule: str) -> Size:
    """The size with the short side at ``short_side``, or less if the long one would exceed ``long_side``."""
    scale = short_side / min(size)
    if rule == "detectron2":
        sides = [float(short_side) if side == min(size) else scale * side for side in size]
        sides = [side * min(1, long_side / max(sides)) for side in sides]
    else:
        sides = [side * min(scale, long_side / max(size)) for side in size]
    return tuple(max(1, int(side + (0 if rule == "torchvision" else 0.5))) for side in sides)


def resize(image: np.ndarray, shape: Size, rule: str) -> np.ndarray:
    """The image resized to ``shape`` bilinearly, an axis at a time, with the bits of each rule's system.

    "detectron2" is Pillow 13: antialiased, in fixed point with 22 bits. The others are not antialiased:
    "torchvision" is torch, in float32, and "mmdetection" is OpenCV, in fixed point with 11 bits.
    """
    fewer_rows, fewer_columns = (old - new for old, new in zip(image.shape, shape, strict=False))
    rows_first = rule == "torchvision" or (rule == "detectron2" and fewer_rows > max(0, 2 * fewer_columns))
    values: Any = image.astype(np.float32) if rule == "torchvision" else image
    for axis in (0, 1) if rows_first else (1, 0):
        old, new = image.shape[axis], shape[axis]
        along_axis = (-1, 1, 1) if axis == 0 else (-1, 1)
        if rule == "detectron2":
            taps, weights = _antialiased(old, new)
            total: Any = 2**21
            for tap, weight in zip(taps, weights, strict=True):
                total = total + values.take(tap, axis) * weight.reshape(along_axis)
            values = (total >> 22).astype(np.uint8)
            continue
        taps, share = neighbours(old, new, rule)
        (low, high), share = (values.take(tap, axis) for tap in taps), share.reshape(along_axis)
        if rule == "torchvision":
            values = low + (high - low) * share
        else:
            low, high = low * _in_2048ths(1 - share), high * _in_2048ths(share)
            values = (low + high) >> 4 if axis == 1 else ((low >> 16) + (high >> 16) + 2) >> 2
    return values if rule == "torchvision" else values.astype(np.uint8)


def _antialiased(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """The old pixels under each of ``new`` pixels [taps new], and their weights, which add up to 2^22."""
    support = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * (old / new)
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), old)
    taps = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((taps - centre + 0.5) * (1 / support)), 0) * (taps < last)
    weights = (weights / np.add.accumulate(weights)[-1] * 2**22 + 0.5).astype(np.int32)
    return np.minimum(taps, old - 1), weights


def neighbours(old: int, new: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """The two old pixels around each of ``new`` pixels [2 new], and the second's share [new]."""
    scale = np.float64(np.float32(old / new) if rule == "torchvision" else old / new)
    position = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    low = np.floor(position)
    return np.clip(np.stack([low, low + 1]).astype(int), 0, old - 1), position - low


def _in_2048ths(share: np.ndarray) -> np.ndarray:
    return np.rint(share * np.float32(2048)).astype(np.int32)
