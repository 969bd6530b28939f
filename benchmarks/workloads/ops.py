"""Workloads of single ops: RoIAlign, RoIPool, NMS, and mask pasting with run-length encoding.

They use an image of 800 x 1333 pixels, padded to 800 x 1344, and maps with 256 channels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.benchmarks.timing import Workload, compiled
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.ops.nms import nms
from mrcnn_jax.ops.roi_align import multilevel_roi_align
from mrcnn_jax.ops.roi_pool import roi_pool
from mrcnn_jax.rle import Rle

HEIGHT, WIDTH = 800, 1333
_CHANNELS = 256
_BINS = 7
_LEVELS = {"p2": (200, 336), "p3": (100, 168), "p4": (50, 84), "p5": (25, 42)}


def random_boxes(
    generator: np.random.Generator,
    count: int,
    *,
    sides: tuple[float, float] = (16, 700),
    image_size: tuple[float, float] = (HEIGHT, WIDTH),
) -> np.ndarray:
    """Boxes inside an image, ``[count 4]`` float32, with log-uniform sides."""
    height, width = image_size
    size = np.exp(generator.uniform(np.log(sides[0]), np.log(sides[1]), (count, 2)))
    size = np.minimum(size, (width, height))
    corner = generator.uniform(0, 1, (count, 2)) * ((width, height) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def pool_pyramid(name: str, *, rois: int, sampling_ratio: int, gradient: bool) -> Workload:
    """RoIAlign over four levels with torchvision's settings, or its value and gradient."""
    generator = np.random.default_rng(0)
    maps = {
        level: generator.standard_normal((*size, _CHANNELS), np.float32) for level, size in _LEVELS.items()
    }
    boxes = random_boxes(generator, rois)
    align = partial(
        multilevel_roi_align,
        boxes=jnp.asarray(boxes),
        output_size=_BINS,
        sampling_ratio=sampling_ratio,
        aligned=False,
        level_rule="torchvision",
    )
    settings = {"sampling_ratio": sampling_ratio, "bins": _BINS, "image_size": (HEIGHT, WIDTH)}
    # Maps and results once; twice with the gradient.
    moved = sum(values.nbytes for values in maps.values()) + 4 * rois * _BINS**2 * _CHANNELS
    if not gradient:
        run = compiled(align, maps)
        return Workload(
            name, run, settings, lambda: {"boxes": boxes} | _channels_first(maps), moved_bytes=moved
        )
    cotangent = generator.standard_normal((rois, _BINS, _BINS, _CHANNELS), np.float32)

    def value_and_gradient(maps: dict[str, Any], cotangent: Any) -> Any:
        value, pull_back = jax.vjp(align, maps)
        return value, pull_back(cotangent)

    run = compiled(value_and_gradient, maps, cotangent)
    arrays = maps | {"cotangent": cotangent}
    return Workload(
        name, run, settings, lambda: {"boxes": boxes} | _channels_first(arrays), moved_bytes=2 * moved
    )


def pool_map(name: str) -> Workload:
    """RoIPool of 1000 regions on the finest map."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((*_LEVELS["p2"], _CHANNELS), np.float32)
    boxes = random_boxes(generator, 1000)
    run = compiled(partial(roi_pool, boxes=jnp.asarray(boxes), stride=4, output_size=_BINS), values)
    moved = values.nbytes + 4 * len(boxes) * _BINS**2 * _CHANNELS
    return Workload(
        name,
        run,
        {"bins": _BINS},
        lambda: {"boxes": boxes} | _channels_first({"map": values}),
        moved_bytes=moved,
    )


def suppress(name: str, *, boxes: int) -> Workload:
    """NMS at an IoU of 0.7 of boxes like proposals: eight near each object."""
    generator = np.random.default_rng(0)
    objects = random_boxes(generator, -(-boxes // 8))
    near = np.repeat(objects, 8, axis=0)[:boxes]
    side = np.tile(near[:, 2:] - near[:, :2], 2)
    near = (near + generator.normal(0, 0.1, near.shape) * side).astype(np.float32)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    scores = generator.random(boxes, np.float32)
    suppress_all = partial(nms, iou_threshold=0.7, max_outputs=boxes)
    run = compiled(suppress_all, near, scores, np.ones(boxes, bool))
    return Workload(name, run, {"iou": 0.7}, lambda: {"boxes": near, "scores": scores})


def paste_and_encode(name: str, *, count: int) -> Workload:
    """Pasting masks of 28 x 28 cells into the image, and run-length encoding; masks repeat after 100."""
    generator = np.random.default_rng(0)
    boxes = random_boxes(generator, 100)
    cells = (np.arange(28) + 0.5) / 14 - 1
    distance = cells[:, None] ** 2 + cells**2 + generator.normal(0, 0.05, (100, 28, 28))
    masks = (1 / (1 + np.exp(8 * (distance - 0.7)))).astype(np.float32)
    boxes, masks = np.resize(boxes, (count, 4)), np.resize(masks, (count, 28, 28))

    def run() -> list[Any]:
        codes = []
        for mask, box in zip(masks, boxes, strict=True):
            crop = paste_mask(mask, box, (HEIGHT, WIDTH), rule="torchvision")
            rle = Rle.from_crop(crop.mask, top=crop.top, left=crop.left, image_size=(HEIGHT, WIDTH))
            codes.append(rle.compressed())
        return codes

    settings = {"image_size": (HEIGHT, WIDTH)}
    return Workload(name, run, settings, lambda: {"boxes": boxes, "masks": masks})


WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "roi_align": partial(pool_pyramid, rois=1000, sampling_ratio=2, gradient=False),
    "roi_align_grad": partial(pool_pyramid, rois=512, sampling_ratio=2, gradient=True),
    "roi_align_adaptive": partial(pool_pyramid, rois=1000, sampling_ratio=0, gradient=False),
    "roi_pool": pool_map,
    "paste_rle": partial(paste_and_encode, count=100),
}


def _channels_first(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(np.moveaxis(values, -1, -3)) for name, values in arrays.items()}
