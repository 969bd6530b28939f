"""The sizes at which an image is shown to the model: one, or several for test-time augmentation.

With ``test.scales`` or ``test.flip`` (paper, appendix B) the model sees several views of an image: at each
scale the image itself and, with ``test.flip``, its mirror image.
"""

import math
from typing import NamedTuple

from mrcnn_jax.config import Config
from mrcnn_jax.config.limits import CANVAS_UNIT, SHARED_HEIGHT
from mrcnn_jax.images import Size
from mrcnn_jax.runs.categories import Categories


class Scale(NamedTuple):
    """How images are resized and padded, as the arguments of ``images.fit``."""

    short_side: int
    long_side: int
    canvases: tuple[Size, ...]


def plain_scale(config: Config) -> Scale:
    """The scale without ``test.scales``."""
    data = config.data
    return Scale(data.test_short_side, data.long_side, data.canvases)


def scales_of(config: Config) -> tuple[Scale, ...]:
    """The scales at which every image is seen.

    The canvases of a scale are those of ``data.canvases`` times its ratio to ``data.test_short_side``,
    rounded up to a multiple of 32 and of ``model.padding_multiple``; its long side has the same ratio to
    ``data.long_side``. If ``test.scales_long_side`` limits that side instead, there are two more canvases,
    one upright and one lying, for the elongated images that it admits.
    """
    return tuple(_scale(config, side) for side in config.test.scales) or (plain_scale(config),)


def _scale(config: Config, short_side: int) -> Scale:
    plain, test = plain_scale(config), config.test
    width_unit = math.lcm(CANVAS_UNIT, config.model.padding_multiple)
    height_unit = width_unit * test.spatial_devices
    least = SHARED_HEIGHT if test.spatial_devices > 1 else 0

    def resized(side: int) -> int:
        return -(-side * short_side // plain.short_side)

    def canvas_of(height: int, width: int) -> Size:
        return -(-max(height, least) // height_unit) * height_unit, -(-width // width_unit) * width_unit

    canvases, long_side = plain.canvases, plain.long_side
    if short_side != plain.short_side:
        canvases = tuple(canvas_of(resized(height), resized(width)) for height, width in canvases)
        long_side = resized(long_side)
    if test.scales_long_side:
        long_side = test.scales_long_side
        canvases += canvas_of(short_side, long_side), canvas_of(long_side, short_side)
    return Scale(short_side, long_side, tuple(dict.fromkeys(canvases)))


def canvases_of(config: Config) -> tuple[Size, ...]:
    """The canvases of all scales, each once: the programs are compiled for those on which images lie."""
    return tuple(dict.fromkeys(canvas for scale in scales_of(config) for canvas in scale.canvases))


class View(NamedTuple):
    """What the model sees of an image."""

    scale: int  # index into ``scales_of``
    flipped: bool  # whether it is the mirror image


def views_of(config: Config) -> tuple[View, ...]:
    """The views of every image; if there are several, their detections are merged."""
    flips = (False, True) if config.test.flip else (False,)
    return tuple(View(scale, flipped) for scale in range(len(scales_of(config))) for flipped in flips)


def describe_views(config: Config) -> str:
    """A line on what test-time augmentation will compute and compile; "" for a single view."""
    views, canvases = len(views_of(config)), len(canvases_of(config))
    if views == 1:
        return ""
    programs = 2 if config.model.mask or config.model.keypoint else 1
    return (
        f"test-time augmentation: {views} views of every image; programs to compile: {programs} per canvas, "
        f"up to {programs * canvases} for {canvases} canvas{'es' if canvases > 1 else ''}"
    )


def check_flip_pairs(config: Config, categories: Categories) -> None:
    """Raises ValueError if left and right keypoints of mirrored views could not be exchanged."""
    if config.test.flip and config.model.keypoint and not categories.flip_pairs:
        raise ValueError(
            "test.flip is True, but the categories' flip_pairs are empty: without them the left and right "
            f"keypoints of a mirrored image cannot be exchanged ({', '.join(categories.keypoint_names)})"
        )
