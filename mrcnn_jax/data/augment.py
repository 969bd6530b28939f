"""Random augmentation of training examples, a function of (seed, example number) alone."""

import math

import numpy as np
from PIL import Image, ImageEnhance

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.affine import rotated_size
from mrcnn_jax.data.transform import ImageTransform
from mrcnn_jax.images import Size

AUGMENT_STREAM = 1  # 0 and 2 are those of passes.py

# From torchvision's RandomPhotometricDistort: ranges of the factors, and of the hue shift in turns.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)

# What expected_area averages over: factors of scale_jitter, and sizes of parts and of turned images.
_FACTORS, _SAMPLES = 64, 8


def example_generator(seed: int, example: int) -> np.random.Generator:
    """The random number generator of one example."""
    key = np.random.SeedSequence(seed, spawn_key=(AUGMENT_STREAM, example))
    return np.random.Generator(np.random.Philox(key))


def random_transform(
    generator: np.random.Generator,
    original: Size,
    canvas: Size,
    config: DataConfig,
    *,
    turned: bool = False,
) -> ImageTransform:
    """A random turn, resize, crop and flip that fits an image of size ``original`` onto ``canvas``.

    Without ``config.scale_jitter``, the short side is chosen uniformly from ``config.train_short_sides`` and
    nothing is cropped. With it (large-scale jitter), the size that just fits the canvas is scaled by a random
    factor from that range and, where it then exceeds the canvas, cropped at a random position (D2's
    ``ResizeScale`` and ``FixedSizeCrop``, torchvision's ``ScaleJitter`` and ``FixedSizeCrop``). If
    ``config.flip``, images are flipped horizontally with probability 1/2, and likewise vertically.

    With ``config.quarter_turns`` the image is turned first: by 90 or 270 degrees if ``turned``, else by 0 or
    180. Which of the two pairs it is depends on the canvas, so the order of the images decides it.
    """
    shape = original[::-1] if turned else original
    if config.scale_jitter:
        coin, fraction, down, right = generator.random(4)
        low, high = config.scale_jitter
        height, width = _jittered(shape, canvas, low + fraction * (high - low), config)
    else:
        side = config.train_short_sides[generator.integers(len(config.train_short_sides))]
        coin, down, right = generator.random(), 0.0, 0.0
        height, width = _at_short_side(shape, canvas, side, config)
    size = min(height, canvas[0]), min(width, canvas[1])
    return ImageTransform(
        original,
        (height, width),
        top=int(down * (height - size[0] + 1)),
        left=int(right * (width - size[1] + 1)),
        size=size,
        flip=config.flip and coin < 0.5,
        flip_vertical=config.flip_vertical and generator.random() < 0.5,
        turns=int(turned) + 2 * int(config.quarter_turns and generator.random() < 0.5),
    )


def random_part(
    generator: np.random.Generator, size: Size, config: DataConfig
) -> tuple[Size, tuple[int, int, int, int]] | None:
    """The size that an image of this size is first resized to, and what is then cut out (``random_crop``).

    None for the images that are not cut, all but a share of ``config.crop_share`` (DETR's ``RandomSelect``,
    MMDetection's ``RandomChoice``). Without ``config.crop_short_sides`` the first size is the image's own.
    """
    if config.crop_share < 1 and generator.random() >= config.crop_share:
        return None
    sizes = sizes_before_crop(size, config)
    before = sizes[generator.integers(len(sizes))] if config.crop_short_sides else size
    return before, random_crop(generator, before, config)


def sizes_before_crop(size: Size, config: DataConfig) -> list[Size]:
    """The sizes that an image of this size may have when a part is cut out of it."""
    if not config.crop_short_sides:
        return [size]
    long = config.train_long_side or config.long_side
    return [
        images.resized_shape(*size, short_side=side, long_side=long, rule=config.resize)
        for side in config.crop_short_sides
    ]


def random_crop(generator: np.random.Generator, size: Size, config: DataConfig) -> tuple[int, int, int, int]:
    """The top, left, height and width of a random part of an image of this size (D2's ``RandomCrop``)."""
    heights, widths = crop_sizes(size, config)
    if config.crop == "relative_range":
        least = np.asarray(config.crop_size, np.float32)
        shares = least + generator.random(2) * (1 - least)
        height, width = (_of_side(side, share) for side, share in zip(size, shares.tolist(), strict=True))
    else:
        height, width = (int(generator.integers(*ends, endpoint=True)) for ends in (heights, widths))
    top, left = (
        int(generator.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True)
    )
    return top, left, height, width


def crop_sizes(size: Size, config: DataConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """The least and the largest height, and width, of the parts that ``random_crop`` takes of an image."""
    first, second = config.crop_size
    match config.crop:
        case "":
            ends = (size[0], size[0]), (size[1], size[1])
        case "relative" | "relative_range":
            height, width = _of_side(size[0], first), _of_side(size[1], second)
            is_range = config.crop == "relative_range"
            ends = (height, size[0] if is_range else height), (width, size[1] if is_range else width)
        case "absolute":
            ends = (int(first), int(first)), (int(second), int(second))
        case _:  # "absolute_range", the same for both sides
            ends = (int(first), int(second)), (int(first), int(second))
    (low, high), (left, right) = ends
    height, width = size
    return (min(low, height), min(high, height)), (min(left, width), min(right, width))


def _of_side(side: int, share: float) -> int:
    """A share of a side, rounded as in D2, and at least 1 pixel."""
    return max(1, int(side * share + 0.5))


def expected_area(original: Size, canvas: Size, config: DataConfig, *, turned: bool = False) -> float:
    """The number of canvas pixels that an image covers, averaged over the sizes of ``random_transform``.

    The sizes of parts that are cut out, and of images turned by an angle, are sampled.
    """
    sizes = []
    for drawn in _shapes(original, config):
        shape = drawn[::-1] if turned else drawn
        if config.scale_jitter:
            low, high = config.scale_jitter
            factors = low + (np.arange(_FACTORS) + 0.5) / _FACTORS * (high - low)
            sizes += [_jittered(shape, canvas, factor, config) for factor in factors.tolist()]
        else:
            sizes += [_at_short_side(shape, canvas, side, config) for side in config.train_short_sides]
    return float(np.minimum(sizes, canvas).prod(axis=1).mean())


def _shapes(original: Size, config: DataConfig) -> list[Size]:
    """Sizes that an image may have before it is resized."""
    if not (config.crop or config.rotation):
        return [original]
    generator, shapes = np.random.default_rng(0), []
    for _ in range(_SAMPLES):
        part = random_part(generator, original, config)
        shape = original if part is None else part[1][2:]
        degrees = generator.uniform(-config.rotation, config.rotation)
        shapes.append(rotated_size(shape, degrees))
    return shapes


def _at_short_side(original: Size, canvas: Size, side: int, config: DataConfig) -> Size:
    long = config.train_long_side or config.long_side
    return images.fitted_shape(
        *original, short_side=side, long_side=long, canvases=(canvas,), rule=config.resize
    )[0]


def _jittered(original: Size, canvas: Size, factor: float, config: DataConfig) -> Size:
    """The largest size that fits the canvas, scaled by ``factor``."""
    factor *= min(canvas[0] / original[0], canvas[1] / original[1])
    to_int = math.floor if config.resize == "torchvision" else round
    height, width = (max(1, to_int(side * factor)) for side in original)
    return height, width


def jitter_colours(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image ``[H W 3]`` uint8 with randomly distorted colours.

    Brightness, contrast, saturation and hue are each changed with probability 1/2; contrast comes before or
    after saturation and hue (torchvision's ``RandomPhotometricDistort`` without its channel permutation).
    """
    image = Image.fromarray(pixels)
    changed = generator.random(4) < 0.5
    brightness, contrast, saturation, hue = (
        generator.uniform(*limits) for limits in (_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE)
    )
    contrast_first = generator.random() < 0.5
    if changed[0]:
        image = ImageEnhance.Brightness(image).enhance(brightness)
    if changed[1] and contrast_first:
        image = ImageEnhance.Contrast(image).enhance(contrast)
    if changed[2]:
        image = ImageEnhance.Color(image).enhance(saturation)
    if changed[3]:
        hsv = np.array(image.convert("HSV"))
        hsv[..., 0] += np.uint8(round(hue * 256) % 256)
        image = Image.fromarray(hsv, "HSV").convert("RGB")
    if changed[1] and not contrast_first:
        image = ImageEnhance.Contrast(image).enhance(contrast)
    return np.asarray(image)
