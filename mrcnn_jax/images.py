"""Pixels from files to the model's canvas, the same for training and for prediction.

Sizes are ``(height, width)`` in pixels; images are RGB ``[H W 3]``, 0 to 255, uint8 as they are read. What
resizing does is said by a rule: "detectron2" or "torchvision" (``config.data.resize``).
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Size = tuple[int, int]


@dataclass(frozen=True)
class Fitted:
    """An image resized and padded to a canvas."""

    image: np.ndarray  # [H W 3] uint8 or float32 (see resize) of the canvas, zero beyond size
    size: Size  # height and width of the resized image, at the canvas's top left


def read_image(source: str | Path | bytes) -> np.ndarray:
    """The pixels of an image file, or of its bytes, as uint8 RGB ``[H W 3]``: see ``to_rgb``.

    Raises ValueError, naming the file and the reason, for what cannot be read whole, and for images above
    Pillow's limit against decompression bombs (179 million pixels).
    """
    if isinstance(source, bytes):
        return decode_image(source, name=f"image of {len(source)} bytes")
    return decode_image(read_file(source), name=str(source))


def read_file(path: str | Path) -> bytes:
    """The bytes of a file. Raises ValueError, naming it and the reason, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_image(data: bytes, *, name: str) -> np.ndarray:
    """``read_image`` of a file's bytes; errors begin with ``name``."""
    try:
        if not data:
            raise ValueError("the file is empty")
        with Image.open(io.BytesIO(data)) as image:
            return to_rgb(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name}: cannot be read: not an image, or of an unknown format") from error
    # Damaged files make Pillow's decoders raise nearly anything: SyntaxError, struct.error, IndexError ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{name}: cannot be read: {reason}") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of an open image as uint8 RGB ``[H W 3]``, upright as its EXIF data says.

    Grayscale, palette, CMYK and 16-bit images become 8-bit RGB; transparency is dropped. Raises nearly
    anything for an image from a damaged file, as Pillow decodes it only now.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits in one channel; convert() would clip instead of scale
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        image = Image.fromarray(high_byte.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def resized_shape(
    height: int, width: int, *, short_side: int, long_side: int, rule: str = "detectron2"
) -> Size:
    """The size with the short side at ``short_side``, or less where the long side would exceed ``long_side``.

    Never below 1 pixel. Rounded half up by rule "detectron2" (its ResizeShortestEdge), down by "torchvision"
    (its GeneralizedRCNNTransform): 480 x 640 at 800 is 800 x 1067 or 800 x 1066. Raises ValueError for
    another rule.
    """
    match rule:
        case "detectron2":
            scale = short_side / min(height, width)
            new_height, new_width = (
                (float(short_side), scale * width) if height < width else (scale * height, float(short_side))
            )
            if max(new_height, new_width) > long_side:
                shrink = long_side / max(new_height, new_width)
                new_height, new_width = new_height * shrink, new_width * shrink
            return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))
        case "torchvision":
            scale = min(short_side / min(height, width), long_side / max(height, width))
            return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    raise _unknown_rule(rule)


def _unknown_rule(rule: str) -> ValueError:
    return ValueError(f"resize is {rule!r}; it must be 'detectron2' or 'torchvision'")


def choose_canvas(shape: Size, canvases: Sequence[Size]) -> Size:
    """The smallest canvas by area that ``shape`` fits in (of equals the first).

    Where none holds it, the canvas that needs the least shrinking.
    """
    if not canvases:
        raise ValueError("canvases is empty: at least one (height, width) is needed")
    # Below 1 the shape must shrink to fit; above, all canvases are equally good but for their area.
    return max(canvases, key=lambda canvas: (min(1.0, _room(shape, canvas)), -canvas[0] * canvas[1]))


def _room(shape: Size, canvas: Size) -> float:
    """The factor by which ``shape`` may grow before it leaves the canvas."""
    return min(canvas[0] / shape[0], canvas[1] / shape[1])


def shrink_to_canvas(shape: Size, canvas: Size) -> Size:
    """``shape`` if the canvas holds it, else the largest size of the same aspect that it holds."""
    room = _room(shape, canvas)
    if room >= 1:
        return shape
    height, width = int(shape[0] * room + 0.5), int(shape[1] * room + 0.5)
    return max(1, min(canvas[0], height)), max(1, min(canvas[1], width))


def fitted_shape(
    height: int,
    width: int,
    *,
    short_side: int,
    long_side: int,
    canvases: Sequence[Size],
    rule: str = "detectron2",
) -> tuple[Size, Size]:
    """The size that an image of this height and width is resized to, and the canvas that it lies on."""
    shape = resized_shape(height, width, short_side=short_side, long_side=long_side, rule=rule)
    canvas = choose_canvas(shape, canvases)
    return shrink_to_canvas(shape, canvas), canvas


def resize(image: np.ndarray, shape: Size, *, rule: str = "detectron2") -> np.ndarray:
    """``image`` (uint8) at ``shape``, bilinear: uint8 and antialiased, or float32 and not.

    By rule "detectron2" it is Pillow's filter on uint8, by "torchvision" torch's ``interpolate`` of floats
    (without corners aligned). Raises ValueError for another rule.
    """
    match rule:
        case "detectron2":
            if image.shape[:2] == tuple(shape):
                return image
            return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
        case "torchvision":
            return _interpolate(image, shape)
    raise _unknown_rule(rule)


def _interpolate(image: np.ndarray, shape: Size) -> np.ndarray:
    """Every new pixel between the two rows and two columns around its place in the old image, float32."""
    low, high, share = linear_taps(image.shape[0], shape[0])
    rows = image.astype(np.float32)
    rows = _between(rows[low], rows[high], share[:, None, None])
    low, high, share = linear_taps(image.shape[1], shape[1])
    return _between(rows[:, low], rows[:, high], share[:, None])


def linear_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source pixels of each of ``new`` pixels along an axis of ``old``, and the second's weight.

    Linear interpolation with ``align_corners=False`` and no antialiasing, as in torch's ``interpolate``.
    """
    # Rounded to float32 twice as by torch: the scale, and the result of a fused multiplication and addition.
    place = ((np.arange(new) + 0.5) * np.float32(old / new).astype(np.float64) - 0.5).astype(np.float32)
    place = np.maximum(place, 0)
    low = np.minimum(place.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    second -= first  # in place, as both are copies
    second *= share
    second += first
    return second


def pad(image: np.ndarray, canvas: Size) -> np.ndarray:
    """``image`` at the top left of a canvas of zeros; raises ValueError where it is larger."""
    height, width = image.shape[:2]
    if height > canvas[0] or width > canvas[1]:
        raise ValueError(f"an image of {height}x{width} does not fit on a canvas of {canvas[0]}x{canvas[1]}")
    padded = np.zeros((*canvas, 3), image.dtype)
    padded[:height, :width] = image
    return padded


def fit(
    image: np.ndarray,
    *,
    short_side: int,
    long_side: int,
    canvases: Sequence[Size],
    rule: str = "detectron2",
) -> Fitted:
    """``image`` (uint8 ``[H W 3]``) resized as ``resized_shape`` says and padded to the best canvas."""
    height, width = image.shape[:2]
    size, canvas = fitted_shape(
        height, width, short_side=short_side, long_side=long_side, canvases=canvases, rule=rule
    )
    return Fitted(image=pad(resize(image, size, rule=rule), canvas), size=size)
