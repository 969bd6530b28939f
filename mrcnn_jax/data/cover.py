"""Covers parts of a scene: with objects of another image, or with a blank rectangle."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mrcnn_jax.data.box_agreement import mask_extent
from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.data.scene import Scene, mask_window
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle

# From torchvision's RandomErasing: ranges of the share of the image and of height / width, and tries.
_AREA, _RATIO, _TRIES = (0.02, 0.33), (0.3, 3.3), 10


def choose_pasted(scene: Scene, generator: np.random.Generator) -> list[CocoAnnotation]:
    """A random subset of a scene's objects to paste elsewhere; crowds and objects without a mask are not.

    Of N objects, N are drawn with repetition (torchvision's ``SimpleCopyPaste``): 63 % of many.
    """
    items = [item for item in scene.items if not item.crowd and item.segmentation is not None]
    drawn = generator.integers(len(items), size=len(items)) if items else ()
    return [items[index] for index in sorted({int(index) for index in drawn})]


def paste(scene: Scene, other: Scene, items: Sequence[CocoAnnotation], *, fill: tuple[float, ...]) -> Scene:
    """The scene with ``items`` of the other one in front, at the place that they have there, not blended.

    What they cover is taken from the masks underneath, in whole pixels; the boxes of objects that lose a
    part shrink to what is left, objects of which nothing is left are dropped, and keypoints that are covered
    count as hidden (visibility 1). Objects without a mask are dropped if their box is covered.

    If a pasted object reaches beyond the image, the image grows, and the new part has the colour ``fill``:
    in the paper (arXiv 2012.07177) all of the canvas is part of the image.
    """
    windows = [mask_window(item, other.size) for item in items]
    height = max([scene.size[0], *(window.rows.stop for window in windows)])
    width = max([scene.size[1], *(window.columns.stop for window in windows)])
    pixels = np.empty((height, width, scene.pixels.shape[2]), scene.pixels.dtype)
    pixels[:] = fill
    pixels[: scene.size[0], : scene.size[1]] = scene.pixels
    covered, pasted = np.zeros((height, width), bool), []
    for item, window in zip(items, windows, strict=True):
        if item.segmentation is None:
            raise ValueError(f"annotation {item.id} has no mask to paste")
        mask = pixels_of(item.segmentation, *window)
        if mask.any():  # else it covers the centre of no pixel
            covered[window.rows, window.columns] |= mask
            pasted.append(item)
    rows, columns = min(height, other.size[0]), min(width, other.size[1])
    shown = covered[:rows, :columns]
    pixels[:rows, :columns][shown] = other.pixels[:rows, :columns][shown]
    below = (_uncovered(item, covered, scene.size) for item in scene.items)
    return Scene(pixels, (*(item for item in below if item is not None), *pasted))


def _uncovered(item: CocoAnnotation, covered: np.ndarray, size: Size) -> CocoAnnotation | None:
    """The object without what is ``covered``, bool of the image's size; None if nothing is left."""
    window = mask_window(item, size)
    hidden = covered[window.rows, window.columns]
    if not hidden.any():
        return item
    item = dataclasses.replace(item, keypoints=_hide(item.keypoints, covered))
    if item.segmentation is None:
        return None if hidden.all() else item
    mask = pixels_of(item.segmentation, *window)
    visible = mask & ~hidden
    if not visible.any():
        return None
    if (visible == mask).all():
        return item
    # A side that loses nothing stays where it is, be it within a pixel.
    before, after, box = _bounds(mask), _bounds(visible), np.array(item.box)
    pixels = after + np.array([window.left, window.top] * 2)
    box = np.where((after == before) & (abs(box - pixels) < 1), box, pixels)
    return dataclasses.replace(
        item,
        box=tuple(box.tolist()),
        segmentation=Rle.from_crop(visible, top=window.top, left=window.left, image_size=covered.shape),
    )


def erase(scene: Scene, generator: np.random.Generator, *, fill: tuple[float, ...]) -> Scene:
    """The scene with a random rectangle of the colour ``fill`` (arXiv 1708.04896, 1708.04552).

    Objects keep their boxes and masks, also for what is erased, as in both papers: the model is to infer it.
    Those of which nothing is left to see are dropped. Erased keypoints count as hidden (visibility 1).
    """
    height, width = scene.size
    for _ in range(_TRIES):
        area = height * width * generator.uniform(*_AREA)
        ratio = math.exp(generator.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < rows < height and 0 < columns < width:
            top, left = (
                int(generator.integers(height - rows + 1)),
                int(generator.integers(width - columns + 1)),
            )
            return erase_rectangle(scene, top, left, rows, columns, fill=fill)
    return scene


def erase_rectangle(
    scene: Scene, top: int, left: int, height: int, width: int, *, fill: tuple[float, ...]
) -> Scene:
    """The scene with a given rectangle erased, see ``erase``."""
    pixels = scene.pixels.copy()
    pixels[top : top + height, left : left + width] = fill
    erased = np.zeros(scene.size, bool)
    erased[top : top + height, left : left + width] = True
    items = []
    for item in scene.items:
        extent = None if item.segmentation is None else mask_extent(item.segmentation)
        x1, y1, x2, y2 = extent or item.box
        if not (left <= x1 and top <= y1 and x2 <= left + width and y2 <= top + height):
            items.append(dataclasses.replace(item, keypoints=_hide(item.keypoints, erased)))
    return Scene(pixels, tuple(items))


def _hide(keypoints: np.ndarray | None, covered: np.ndarray) -> np.ndarray | None:
    """Keypoints ``[K 3]`` with visibility 1 where they are labelled and their pixel is covered."""
    if keypoints is None:
        return None
    height, width = covered.shape
    column = np.clip(keypoints[:, 0].astype(np.int64), 0, width - 1)  # one on the edge is of the last pixel
    row = np.clip(keypoints[:, 1].astype(np.int64), 0, height - 1)
    hidden = covered[row, column] & (keypoints[:, 2] > 0)
    return np.where(hidden[:, None], keypoints * (1, 1, 0) + (0, 0, 1), keypoints).astype(np.float32)


def _bounds(mask: np.ndarray) -> np.ndarray:
    """The box ``[4]`` around the pixels of a mask, x1 y1 x2 y2."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
