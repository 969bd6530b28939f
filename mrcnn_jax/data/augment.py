"""What is drawn at random for a training example: a function of (seed, example number) alone."""

import math

import numpy as np
from PIL import Image, ImageEnhance

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.view import View
from mrcnn_jax.images import Size

AUGMENT_STREAM = 1  # beside the order's stream 0

# torchvision's RandomPhotometricDistort: factors, and the shift of the hue in turns.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)

_FACTORS = 64  # of scale_jitter that an expectation is taken over


def example_generator(seed: int, example: int) -> np.random.Generator:
    """The random numbers of the example of this number."""
    key = np.random.SeedSequence(seed, spawn_key=(AUGMENT_STREAM, example))
    return np.random.Generator(np.random.Philox(key))


def draw_view(generator: np.random.Generator, original: Size, canvas: Size, config: DataConfig) -> View:
    """How an image of this size is shown on its canvas.

    Resized to one of ``config.train_short_sides``, each as likely; or, with ``config.scale_jitter``, to the
    size that fits the canvas times a factor drawn from that range, and cut to the canvas at a random place
    where it is larger (large-scale jitter: D2's ``ResizeScale`` and ``FixedSizeCrop``, torchvision's
    ``ScaleJitter`` and ``FixedSizeCrop``). Mirrored half of the time if ``config.flip``.
    """
    if not config.scale_jitter:
        side = config.train_short_sides[generator.integers(len(config.train_short_sides))]
        coin = generator.random()
        resized = _at_short_side(original, canvas, side, config)
        return View(original, resized, top=0, left=0, size=resized, flip=config.flip and coin < 0.5)

    coin, share, down, right = generator.random(4)
    low, high = config.scale_jitter
    height, width = _jittered(original, canvas, low + share * (high - low), config)
    size = min(height, canvas[0]), min(width, canvas[1])
    top, left = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
    return View(original, (height, width), top=top, left=left, size=size, flip=config.flip and coin < 0.5)


def expected_area(original: Size, canvas: Size, config: DataConfig) -> float:
    """The pixels of its canvas that an image of this size covers, on average over what ``draw_view`` does."""
    if config.scale_jitter:
        low, high = config.scale_jitter
        shares = (np.arange(_FACTORS) + 0.5) / _FACTORS
        sizes = [_jittered(original, canvas, low + share * (high - low), config) for share in shares.tolist()]
    else:
        sizes = [_at_short_side(original, canvas, side, config) for side in config.train_short_sides]
    return float(np.minimum(sizes, canvas).prod(axis=1).mean())


def _at_short_side(original: Size, canvas: Size, side: int, config: DataConfig) -> Size:
    return images.fitted_shape(
        *original, short_side=side, long_side=config.long_side, canvases=(canvas,), rule=config.resize
    )[0]


def _jittered(original: Size, canvas: Size, factor: float, config: DataConfig) -> Size:
    """The size that fits the canvas, times ``factor``."""
    factor *= min(canvas[0] / original[0], canvas[1] / original[1])
    whole = math.floor if config.resize == "torchvision" else round
    height, width = (max(1, whole(side * factor)) for side in original)
    return height, width


def jitter_colours(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An image ``[H W 3]`` uint8 with other colours.

    Brightness, contrast, saturation and hue, each changed half of the time, contrast before or after the
    others (torchvision's ``RandomPhotometricDistort``, but for the change of channels).
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
