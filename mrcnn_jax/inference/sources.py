"""What a detector reads: images as files, objects or arrays, stacked to batches.

Shapes: B images of a batch, H x W pixels of an image or canvas.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_jax.images import Fitted, Size, read_image, to_pixels
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.proposals import ImageProposals, pad_proposals
from mrcnn_jax.types import Proposals

# An image file, Pillow's image, or pixels [H W C] or gray [H W], by default RGB uint8, also as a function's
# result.
Source = str | os.PathLike[str] | Image.Image | np.ndarray | Callable[[], np.ndarray]

# Pillow reads a file when its pixels are first accessed, which two threads must not do at once.
_DECODE_LOCK = threading.Lock()


def read_source(source: Any, index: int, pixels: PixelFormat) -> np.ndarray:
    """The pixels of the image ``source``, which messages call number ``index``.

    Raises ValueError, naming the image and the rule, for anything that is no ``Source``, and for a file that
    is missing or cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source), pixels)
    if isinstance(source, Image.Image):
        return _check_pixels(_decode(source, index, pixels), index, pixels)
    return _check_pixels(source() if callable(source) else source, index, pixels)


def _decode(image: Image.Image, index: int, pixels: PixelFormat) -> np.ndarray:
    try:
        with _DECODE_LOCK:
            return to_pixels(image, pixels)
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"image {index}, {image!r}: cannot be read: {error}") from error


def _check_pixels(source: Any, index: int, pixels: PixelFormat) -> np.ndarray:
    """The pixels of ``source``; raises ValueError unless it is an array that holds an image."""
    is_array = isinstance(source, np.ndarray)
    problem = ""
    if is_array:
        try:
            return pixels.convert(source)
        except ValueError as error:
            problem = str(error)
    given = f"{source.dtype} {list(source.shape)}" if is_array else f"of type {type(source).__name__}"
    wanted = f"a {pixels.dtype} NumPy array [H W {pixels.channels}]"
    if pixels.is_rgb:
        wanted = "a uint8 NumPy array (0 to 255) [H W 3] (RGB) or [H W] (gray)"
    raise ValueError(
        f"image {index} is {given}; an image is a path, a PIL.Image.Image, or {wanted}; pass several images "
        f"as a list{problem and f': {problem}'}"
    )


def stack_images(
    batch: Sequence[Fitted], batch_size: int, *, flipped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The images ``[B H W C]`` of a batch, mirrored if ``flipped``, and their sizes ``[B 2]``.

    The batch is filled up with blank images.
    """
    height, width, channels = batch[0].image.shape
    images = np.zeros((batch_size, height, width, channels), batch[0].image.dtype)
    sizes = np.full((batch_size, 2), (height, width), np.int32)
    for row, fitted in enumerate(batch):
        images[row] = fitted.image
        sizes[row] = fitted.size
        if flipped:
            inside = images[row, :, : fitted.size[1]]
            inside[:] = inside[:, ::-1].copy()
    return images, sizes


def resize_proposals(found: ImageProposals, original: Size, size: Size, count: int) -> Proposals:
    """The ``count`` best proposals of an image that was resized from ``original`` to ``size``."""
    scale = np.array([size[1] / original[1], size[0] / original[0]] * 2)
    rows: dict[str, Any] = pad_proposals(found.boxes * scale, found.objectness, size=size, count=count)
    return Proposals(**rows)
