"""Encodes keypoints as cells of a region's heatmap, and decodes heatmaps (Mask R-CNN, section 5).

Shapes: N regions, K keypoints, M x M cells of a region's heatmap.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Int32, Shaped

from mrcnn_jax.runtime.platforms import by_platform

SCORES = ("logit", "probability")

_Peak = tuple[Array, Array]  # the highest value, and the index of the first pixel with that value


def encode_keypoints(
    keypoints: Shaped[Array, "n k 3"], rois: Shaped[Array, "n 4"], *, size: int
) -> tuple[Int32[Array, "n k"], Bool[Array, "n k"]]:
    """The cell ``y * size + x`` of each keypoint in its region's heatmap, and whether it is a target.

    A keypoint ``x y visibility`` is a target if its visibility is above 0 and it lies in its region, edges
    included: the right and bottom edges belong to the last cell. Other keypoints have cell 0. As in
    Detectron2 and torchvision.
    """
    keypoints = keypoints.astype(jnp.float32)
    rois = rois.astype(jnp.float32)[:, None]
    point, low, high = keypoints[..., :2], rois[..., :2], rois[..., 2:]
    side = high - low
    inside = (point >= low) & (point <= high) & (side > 0)
    visible = jnp.all(inside, axis=-1) & (keypoints[..., 2] > 0)
    # Rounding decides for points on a cell's edge, so size / side is size * (1 / side), as in torch.
    reciprocal = 1.0 / jnp.where(side > 0, side, 1.0)
    scaled = (point - low) * (reciprocal * size)
    x, y = jnp.moveaxis(jnp.minimum(jnp.floor(scaled), size - 1), -1, 0)
    return jnp.where(visible, y * size + x, 0).astype(jnp.int32), visible


def decode_keypoints(
    logits: Float[Array, "n m m k"], boxes: Shaped[Array, "n 4"], valid: Bool[Array, " n"], *, score: str
) -> Float[Array, "n k 3"]:
    """``x y score`` of each keypoint: the highest pixel of its heatmap over the box, in image pixels.

    The heatmap is resized to the box, a side of w pixels to ceil(w), with torch's bicubic kernel (a = -0.75,
    edge cells repeated). The keypoint is the highest pixel, the first in row-major order among equals; pixel
    i lies at ``x1 + (i + 0.5) * w / ceil(w)``. Sides under one pixel count as one. All as in
    ``heatmaps_to_keypoints`` of Detectron2 and torchvision.

    ``score`` "logit" is the resized heatmap's value there (torchvision). "probability" is a softmax over the
    pixels, except that its sum is over the heatmap's cells, so that it does not depend on the size of the box
    (Detectron2); it can exceed 1, because the resized heatmap can rise above every cell.

    Rows that are not ``valid`` are zeros. On a CPU they cost nothing, and a region's time depends on the size
    of its box. Raises ``ValueError`` for any other ``score``.
    """
    if score not in SCORES:
        raise ValueError(f"keypoint score ({score!r}) must be one of {', '.join(SCORES)}")
    logits, boxes = logits.astype(jnp.float32), boxes.astype(jnp.float32)
    corner, side = boxes[:, :2], jnp.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    pixels = jnp.where(valid[:, None], jnp.ceil(side), 0.0).astype(jnp.int32)  # [N 2]: width, height

    # A CPU processes one region at a time, in blocks that fit its cache, so that no region waits for the
    # largest. Accelerators are fastest with few large steps.
    find_small = sequential_vmap(functools.partial(_find_peaks, rows=32, columns=64))
    find_large = functools.partial(_find_peaks, rows=64, columns=128)
    forms = {"cpu": jax.vmap(find_small), "default": jax.vmap(find_large)}
    peak, index = by_platform(forms, logits, pixels)  # [N K]
    width = jnp.maximum(pixels[:, :1], 1)
    cell = jnp.stack([index % width, index // width], axis=-1).astype(jnp.float32)
    position = corner[:, None] + (cell + 0.5) * (side / jnp.ceil(side))[:, None]
    if score == "probability":
        peak = 1 / jnp.sum(jnp.exp(logits - peak[:, None, None]), axis=(1, 2))
    return jnp.where(valid[:, None, None], jnp.concatenate([position, peak[..., None]], axis=-1), 0.0)


def _find_peaks(logits: Array, pixels: Array, *, rows: int, columns: int) -> _Peak:
    """The peak of each heatmap in ``logits [M M K]``, resized to ``pixels`` = (width, height).

    Pixels are indexed in row-major order and processed in blocks of ``rows x columns``. The last blocks
    repeat the last row and column, which does not change the peak.
    """
    size, _, points = logits.shape
    width, height = pixels
    resize = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)

    def search_columns(step: Array, best: _Peak) -> _Peak:
        x = jnp.minimum(step * columns + jnp.arange(columns), width - 1)
        strip = resize("xc,yck->yxk", _cubic_weights(x, width, size), logits)

        def search_rows(step: Array, best: _Peak) -> _Peak:
            y = jnp.minimum(step * rows + jnp.arange(rows), height - 1)
            block = resize("yc,cxk->yxk", _cubic_weights(y, height, size), strip)
            return _higher(best, _first_peak(block, (y[:, None] * width + x)[..., None]))

        column_peaks = lax.fori_loop(0, -(-height // rows), search_rows, _no_peak(columns, points))
        return _higher(best, _first_peak(*column_peaks))

    return lax.fori_loop(0, -(-width // columns), search_columns, _no_peak(points))


def _cubic_weights(pixel: Int32[Array, " p"], count: Int32[Array, ""], cells: int) -> Float[Array, "p _"]:
    """The weight of each of ``cells`` at each ``pixel``, along an axis resized to ``count`` pixels."""
    a = -0.75  # the slope of torch's kernel
    position = (pixel + 0.5) * (jnp.float32(cells) / count) - 0.5  # 0 at the centre of the first cell
    low = jnp.floor(position)
    after = position - low
    before = 1 - after
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (after, before)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (after + 1, before + 1)]
    weights = jnp.stack([far[0], near[0], near[1], far[1]])  # [4 P]
    taps = jnp.clip(low.astype(jnp.int32) + jnp.arange(-1, 3)[:, None], 0, cells - 1)
    return jnp.sum(weights[..., None] * (taps[..., None] == jnp.arange(cells)), axis=0)


def _no_peak(*shape: int) -> _Peak:
    return jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)


def _first_peak(values: Array, index: Array) -> _Peak:
    """The peak along the first axis; ties go to the lowest index."""
    value = jnp.max(values, axis=0)
    last = jnp.iinfo(jnp.int32).max
    return value, jnp.min(jnp.where(values == value, index, last), axis=0)


def _higher(one: _Peak, other: _Peak) -> _Peak:
    """The elementwise higher of two peaks; ties go to the lower index."""
    is_other = (other[0] > one[0]) | ((other[0] == one[0]) & (other[1] < one[1]))
    return jnp.where(is_other, other[0], one[0]), jnp.where(is_other, other[1], one[1])
