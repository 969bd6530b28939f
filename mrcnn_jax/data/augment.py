"""Random augmentation of training examples, a function of (seed, example number) alone."""

import math

import numpy as np
from PIL import Image, ImageEnhance

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.transform import ImageTransform
from mrcnn_jax.images import Size

AUGMENT_STREAM = 1  # 0 and 2 are those of passes.py

# From torchvision's RandomPhotometricDistort: ranges of the factors, and of the hue shift in turns.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)

_FACTORS = 64  # scale_jitter factors that expected_area averages over


def example_generator(seed: int, example: int) -> np.random.Generator:
    """The random number generator of one example."""
    key = np.random.SeedSequence(seed, spawn_key=(AUGMENT_STREAM, example))
    return np.random.Generator(np.random.Philox(key))


def random_transform(
    generator: np.random.Generator, original: Size, canvas: Size, config: DataConfig
) -> ImageTransform:
    """A random resize, crop and flip that fits an image of size ``original`` onto ``canvas``.

    Without ``config.scale_jitter``, the short side is chosen uniformly from ``config.train_short_sides`` and
    nothing is cropped. With it (large-scale jitter), the size that just fits the canvas is scaled by a random
    factor from that range and, where it then exceeds the canvas, cropped at a random position (D2's
    ``ResizeScale`` and ``FixedSizeCrop``, torchvision's ``ScaleJitter`` and ``FixedSizeCrop``). If
    ``config.flip``, images are flipped horizontally with probability 1/2.
    """
    if not config.scale_jitter:
        side = config.train_short_sides[generator.integers(len(config.train_short_sides))]
        coin = generator.random()
        resized = _at_short_side(original, canvas, side, config)
        return ImageTransform(original, resized, top=0, left=0, size=resized, flip=config.flip and coin < 0.5)

    coin, fraction, down, right = generator.random(4)
    low, high = config.scale_jitter
    height, width = _jittered(original, canvas, low + fraction * (high - low), config)
    size = min(height, canvas[0]), min(width, canvas[1])
    top, left = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
    return ImageTransform(
        original, (height, width), top=top, left=left, size=size, flip=config.flip and coin < 0.5
    )


def expected_area(original: Size, canvas: Size, config: DataConfig) -> float:
    """The number of canvas pixels that an image covers, averaged over the sizes of ``random_transform``."""
    if config.scale_jitter:
        low, high = config.scale_jitter
        factors = low + (np.arange(_FACTORS) + 0.5) / _FACTORS * (high - low)
        sizes = [_jittered(original, canvas, factor, config) for factor in factors.tolist()]
    else:
        sizes = [_at_short_side(original, canvas, side, config) for side in config.train_short_sides]
    return float(np.minimum(sizes, canvas).prod(axis=1).mean())


def _at_short_side(original: Size, canvas: Size, side: int, config: DataConfig) -> Size:
    return images.fitted_shape(
        *original, short_side=side, long_side=config.long_side, canvases=(canvas,), rule=config.resize
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
