"""Reads, resizes and pads images, for both training and prediction.

Sizes are ``(height, width)`` in pixels; images are ``[H W C]``, by default RGB, 0 to 255, uint8 when read
(``pixels.PixelFormat``). A canvas is the padded size of an image. ``rule`` selects whose resizing is
reproduced, "detectron2", "torchvision" or "mmdetection" (``config.data.resize``).
"""

import math
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from mrcnn_jax.channel_files import is_npy, is_tiff, read_npy, read_tiff
from mrcnn_jax.image_formats import open_image
from mrcnn_jax.pixels import RGB, PixelFormat

Size = tuple[int, int]

# The largest gray value of each range, and the factor that makes 8 bits of it.
_INTEGER_RANGES = ((255, 1.0), (4095, 1 / 16), (65535, 1 / 256))
_FLOAT_RANGES = ((1, 255.0), *_INTEGER_RANGES)
_LARGEST_FILE = 2**31  # bytes; the most pixels that Pillow reads take up to 1.4e9, uncompressed
_NAMED = 3  # images that one line names
_EXACT = ("PNG", "JPEG", "MPO")  # formats whose values are sure to be in 8 bits, or in 16 of one channel


@dataclass(frozen=True)
class Fitted:
    """An image resized and padded to a canvas."""

    image: np.ndarray  # [H W C] the canvas, uint8 or float32 (see resize), zero beyond size
    size: Size  # height and width of the resized image, at the top left of the canvas


def read_image(source: str | Path | bytes, pixels: PixelFormat = RGB) -> np.ndarray:
    """The ``pixels`` of an image, given as a path or as the file's bytes (see ``to_pixels``).

    Raises ValueError, naming the file and the reason, if the image cannot be fully decoded, is of no format
    in ``image_formats.FORMATS`` and no array of NumPy's, exceeds Pillow's limit against decompression bombs
    (179 million pixels), or is of another number of channels or another type than ``pixels``.
    """
    if isinstance(source, bytes):
        return decode_image(source, pixels, name=f"image of {len(source)} bytes")
    return decode_image(read_file(source), pixels, name=str(source))


def read_file(path: str | Path) -> bytes:
    """The bytes of a file. Raises ValueError, naming it and the reason, if it cannot be read.

    A dataset may come from a stranger: a device or a pipe, which a link can lead to, would never end, and a
    sparse file of any size takes no space in an archive.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ValueError(f"{path}: cannot be read: not a regular file")
        if status.st_size > _LARGEST_FILE:
            raise ValueError(f"{path}: cannot be read: it has {status.st_size} bytes, more than any image")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_image(data: bytes, pixels: PixelFormat = RGB, *, name: str) -> np.ndarray:
    """The pixels of an image file's bytes, as from ``read_image``; errors are prefixed with ``name``."""
    try:
        if is_npy(data):
            return pixels.convert(read_npy(data))
        if is_tiff(data) and not pixels.is_rgb:
            return pixels.convert(read_tiff(data, pixels.channels))
        with open_image(data) as image:
            return to_pixels(image, pixels)
    # Damaged files make Pillow's decoders raise nearly anything: SyntaxError, struct.error, IndexError ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{name}: cannot be read: {reason}") from error


def to_pixels(image: Image.Image, pixels: PixelFormat) -> np.ndarray:
    """The pixels of an opened image in this format, rotated upright by its EXIF orientation.

    They are those of ``to_rgb`` for the default format. Otherwise the values stay as they are: gray is one
    channel, colours are three, and transparency is one more if the format has two or four channels. Raises
    ValueError if the image does not have the channels and the type of the format, or more than the 8 bits per
    colour that Pillow reads; and, because Pillow decodes the pixels only now, nearly any exception for a
    damaged file.
    """
    if pixels.is_rgb:
        return to_rgb(image)
    if pixels.dtype == "float32" and image.format not in (*_EXACT, None):
        raise ValueError(
            f"it is {image.format}; with model.pixel_type 'float32' the formats read are .npy, TIFF, PNG and "
            "JPEG"
        )
    if len(image.getbands()) > 1 and any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ())):
        raise ValueError("it has 16 bits per colour, of which Pillow reads 8; save it as .npy or TIFF")
    image = ImageOps.exif_transpose(image)
    gray = image.mode in ("1", "L", "F") or image.mode.startswith("I")
    if not gray and (image.mode not in ("LA", "RGBA") or len(image.mode) != pixels.channels):
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    return pixels.convert(np.asarray(image.convert("L") if image.mode == "1" else image))


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of an opened image as uint8 RGB ``[H W 3]``, rotated upright by its EXIF orientation.

    Of several frames or pages, those of the current one: the first, in a file just opened. Every mode of
    Pillow becomes 8-bit RGB: transparency is dropped, and deeper grayscale is scaled by the rule of
    ``scale_to_8_bits``. Raises ValueError where that rule has no answer, and, because Pillow decodes the
    pixels only now, nearly any exception for a damaged file.
    """
    # Pillow inverts TIFF files in which 0 is white only if they have at most 8 bits.
    white_is_zero = getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):  # convert() would clip these instead of scaling
        values = scale_to_8_bits(np.asarray(image))
        image = Image.fromarray(255 - values if white_is_zero else values)
    elif image.mode in ("La", "RGBa"):  # premultiplied by the transparency that is to be dropped
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def scale_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grayscale ``[H W]`` of integers or floats as uint8, scaled by the range that its largest value shows.

    Files seldom say how many of their 16 or 32 bits they use: many cameras have 12, and some tools write
    8-bit values into deeper files. Read by their full range, such images would be black.

        largest value   factor    range
        up to 1         255       floats from 0 to 1 (integers: 8 bits)
        up to 255       1         8 bits
        up to 4095      1 / 16    12 bits
        up to 65535     1 / 256   16 bits

    Integers are rounded down, so that 16 bits keep their high byte. Floats are rounded to the nearest, and
    may exceed a range by 1/500 of it (half a step of 8 bits), as they do after resampling. Raises ValueError
    if a value is negative, larger than 65535, or not finite.
    """
    low, high = values.min().item(), values.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN becomes both minimum and maximum
        raise ValueError("its gray values must be finite, but some are infinite or NaN")
    is_float = values.dtype.kind == "f"
    ranges, slack = (_FLOAT_RANGES, 1 / 500) if is_float else (_INTEGER_RANGES, 0.0)
    top, factor = next((pair for pair in ranges if high <= pair[0] * (1 + slack)), ranges[-1])
    if low < -slack * top or high > (1 + slack) * top:
        raise ValueError(f"its gray values are from {low:.6g} to {high:.6g}; they must be from 0 to 65535")
    scaled = values * np.float32(factor)  # exact for integers: at most 16 bits, times a power of two
    return (np.clip(np.rint(scaled), 0, 255) if is_float else scaled).astype(np.uint8)


def is_nearly_black(pixels: np.ndarray) -> bool:
    """Whether no value of an 8-bit image reaches 16, as none does of 12 bits read as 16.

    Even a photograph taken at night has a light, or noise, that is brighter. Floats have units of their own.
    """
    return pixels.dtype == np.uint8 and bool(pixels.max() < 16)


def describe_nearly_black(names: Sequence[str]) -> str:
    """A warning about the nearly black images with these ``names``: the first of them, and the number."""
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    count = "1 image is" if len(names) == 1 else f"{len(names)} images are"
    return (
        f"{count} nearly black (no value reaches 16 of 255): {shown}; if they should not be, convert them to "
        "8 bits (docs/data.md)"
    )


def resized_shape(
    height: int, width: int, *, short_side: int, long_side: int, rule: str = "detectron2"
) -> Size:
    """The size with the short side at ``short_side``, or less if the long side would exceed ``long_side``.

    Sides are at least 1 pixel. The rules "detectron2" (its ResizeShortestEdge) and "mmdetection" (mmcv's
    imrescale) round half up, "torchvision" (its GeneralizedRCNNTransform) rounds down: 480 x 640 at 800
    becomes 800 x 1067 or 800 x 1066. The former two compute the scale in different steps. Raises ValueError
    for another rule.
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
        case "mmdetection":
            scale = min(long_side / max(height, width), short_side / min(height, width))
            return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    raise _unknown_rule(rule)


def _unknown_rule(rule: str) -> ValueError:
    return ValueError(f"resize is {rule!r}; it must be 'detectron2', 'torchvision' or 'mmdetection'")


def choose_canvas(shape: Size, canvases: Sequence[Size]) -> Size:
    """The canvas with the smallest area that ``shape`` fits in; the first one of equals.

    If ``shape`` fits in none, the canvas that requires the least shrinking.
    """
    if not canvases:
        raise ValueError("canvases is empty: at least one (height, width) is needed")
    # A factor below 1 means shrinking; all canvases with a factor of at least 1 differ only in area.
    return max(canvases, key=lambda canvas: (min(1.0, _scale_to_fit(shape, canvas)), -canvas[0] * canvas[1]))


def _scale_to_fit(shape: Size, canvas: Size) -> float:
    """The largest factor at which ``shape`` still fits the canvas."""
    return min(canvas[0] / shape[0], canvas[1] / shape[1])


def shrink_to_canvas(shape: Size, canvas: Size) -> Size:
    """``shape`` if it fits the canvas, otherwise the largest size of the same aspect ratio that does."""
    scale = _scale_to_fit(shape, canvas)
    if scale >= 1:
        return shape
    height, width = int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)
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
    """The size to which an image of this height and width is resized, and its canvas."""
    shape = resized_shape(height, width, short_side=short_side, long_side=long_side, rule=rule)
    canvas = choose_canvas(shape, canvases)
    return shrink_to_canvas(shape, canvas), canvas


def resize(image: np.ndarray, shape: Size, *, rule: str = "detectron2") -> np.ndarray:
    """``image``, uint8 or float32, resized to ``shape`` with bilinear interpolation, each channel by itself.

    The rule "detectron2" keeps the type and is antialiased, like Pillow; "torchvision" gives float32, not
    antialiased, like torch's ``interpolate`` with ``align_corners=False``; "mmdetection" keeps the type, not
    antialiased, like OpenCV's ``INTER_LINEAR``, of uint8 with the same bits. Raises ValueError for another
    rule.
    """
    match rule:
        case "detectron2":
            if image.shape[:2] == tuple(shape):
                return image
            size, bilinear = (shape[1], shape[0]), Image.Resampling.BILINEAR
            return map_channels(image, lambda part: part.resize(size, bilinear))
        case "torchvision":
            return _interpolate(image, shape)
        case "mmdetection":
            if image.shape[:2] == tuple(shape):
                return image
            is_float = image.dtype == np.float32
            return (_interpolate_as_opencv if is_float else _interpolate_in_fixed_point)(image, shape)
    raise _unknown_rule(rule)


def map_channels(
    image: np.ndarray, function: Callable[..., Image.Image], values: Sequence[float] = ()
) -> np.ndarray:
    """What a function of Pillow's images makes of RGB as a whole, or else of each channel as gray or floats.

    It makes no difference to a function that treats all channels alike. ``values``, one for each channel, are
    further arguments, with the channel that they are of.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(function(Image.fromarray(image), *values))
    parts = [
        function(Image.fromarray(np.ascontiguousarray(image[:, :, channel])), *values[channel : channel + 1])
        for channel in range(image.shape[2])
    ]
    return np.stack([np.asarray(part) for part in parts], axis=-1)


def _interpolate(image: np.ndarray, shape: Size) -> np.ndarray:
    """The resized image, float32: first rows, then columns are interpolated."""
    low, high, weight = interpolation_indices(image.shape[0], shape[0])
    rows = image.astype(np.float32)
    rows = _lerp(rows[low], rows[high], weight[:, None, None])
    low, high, weight = interpolation_indices(image.shape[1], shape[1])
    return _lerp(rows[:, low], rows[:, high], weight[:, None])


def interpolation_indices(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices and weights to resize an axis linearly from ``old`` to ``new`` pixels.

    Returns, for each new pixel, the indices of the two old pixels around it and the weight of the second; as
    in torch's ``interpolate`` with ``align_corners=False`` and without antialiasing.
    """
    # Rounded to float32 twice, as in torch: the scale, and the result of a fused multiply-add.
    position = ((np.arange(new) + 0.5) * np.float32(old / new).astype(np.float64) - 0.5).astype(np.float32)
    position = np.maximum(position, 0)
    low = np.minimum(position.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (position - low).astype(np.float32)


def _lerp(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    second -= first  # in place, as both are copies
    second *= weight
    second += first
    return second


def _interpolate_as_opencv(image: np.ndarray, shape: Size) -> np.ndarray:
    """The resized image, float32, as OpenCV's ``resize`` computes it, up to rounding.

    Unlike torch it takes the means of 2 x 2 pixels at exactly half the size.
    """
    (old_height, old_width), (height, width) = image.shape[:2], shape
    if (old_height, old_width) == (2 * height, 2 * width):
        rows = image[::2] + image[1::2]
        return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)
    return _interpolate(image, shape)


def _interpolate_in_fixed_point(image: np.ndarray, shape: Size) -> np.ndarray:
    """The resized image, uint8, as OpenCV's ``resize`` computes it: with weights of 11 bits.

    At exactly half the size OpenCV takes the means of 2 x 2 pixels.
    """
    (old_height, old_width), (height, width) = image.shape[:2], shape
    values = image.astype(np.int32)
    if (old_height, old_width) == (2 * height, 2 * width):
        rows = values[::2] + values[1::2]
        return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    left, fraction = _fixed_point_positions(old_width, width)
    fraction = np.where((left < 0) | (left >= old_width - 1), np.float32(0), fraction)  # of columns only
    left, right = np.clip(left, 0, old_width - 1), np.clip(left + 1, 0, old_width - 1)
    first, second = _fixed_point_weights(fraction)
    values = values[:, left] * first[:, None] + values[:, right] * second[:, None]
    values >>= 4
    top, fraction = _fixed_point_positions(old_height, height)
    top, bottom = np.clip(top, 0, old_height - 1), np.clip(top + 1, 0, old_height - 1)
    first, second = (weight[:, None, None] for weight in _fixed_point_weights(fraction))
    values = ((values[top] * first) >> 16) + ((values[bottom] * second) >> 16)
    return ((values + 2) >> 2).astype(np.uint8)


def _fixed_point_positions(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the new pixels of an axis lie between its old ones: the first's index, and the rest, float32."""
    position = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    index = np.floor(position)
    return index.astype(np.int64), position - index


def _fixed_point_weights(fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of the first and the second pixel, each rounded by itself to whole 2048ths."""
    first, second = ((weight * 2048).astype(np.float32) for weight in (1 - fraction, fraction))
    return np.rint(first).astype(np.int32), np.rint(second).astype(np.int32)


def pad(image: np.ndarray, canvas: Size) -> np.ndarray:
    """``image`` at the top left of a canvas of zeros; raises ValueError if it is larger than the canvas."""
    height, width = image.shape[:2]
    if height > canvas[0] or width > canvas[1]:
        raise ValueError(f"an image of {height}x{width} does not fit on a canvas of {canvas[0]}x{canvas[1]}")
    padded = np.zeros((*canvas, image.shape[2]), image.dtype)
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
    """``image [H W C]`` resized and padded to the size and canvas of ``fitted_shape``."""
    height, width = image.shape[:2]
    size, canvas = fitted_shape(
        height, width, short_side=short_side, long_side=long_side, canvases=canvases, rule=rule
    )
    return Fitted(image=pad(resize(image, size, rule=rule), canvas), size=size)
