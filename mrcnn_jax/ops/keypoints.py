"""Keypoints as cells of a region's map, and back (Mask R-CNN, section 5).

Shapes: N regions, K keypoints, M x M cells of a region's map.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int32, Shaped

# The peak is sought at these distances, in cells, from the cell of highest logit.
_OFFSETS = np.arange(-16, 17, dtype=np.float32) / 16
_TAPS = np.arange(-2, 3)  # the neighbours that a cubic kernel reaches from there


def encode_keypoints(
    keypoints: Shaped[Array, "n k 3"], rois: Shaped[Array, "n 4"], *, size: int
) -> tuple[Int32[Array, "n k"], Bool[Array, "n k"]]:
    """The cell ``y * size + x`` of each keypoint in the map of its region, and whether it is a target.

    A keypoint ``x y visibility`` is one if its visibility is above 0 and it lies in its region, edges
    included: the right and the bottom edge belong to the last cell. The cell of all others is 0. As D2 and
    torchvision.
    """
    keypoints = keypoints.astype(jnp.float32)
    rois = rois.astype(jnp.float32)[:, None]
    point, low, high = keypoints[..., :2], rois[..., :2], rois[..., 2:]
    side = high - low
    inside = (point >= low) & (point <= high) & (side > 0)
    visible = jnp.all(inside, axis=-1) & (keypoints[..., 2] > 0)
    scaled = (point - low) * (size / jnp.where(side > 0, side, 1.0))
    x, y = jnp.moveaxis(jnp.minimum(jnp.floor(scaled), size - 1), -1, 0)
    return jnp.where(visible, y * size + x, 0).astype(jnp.int32), visible


def decode_keypoints(logits: Float[Array, "n m m k"], boxes: Shaped[Array, "n 4"]) -> Float[Array, "n k 3"]:
    """``x y score`` of each keypoint: the peak of its map over the box, in pixels, and the logit there.

    The map is interpolated by the bicubic kernel of torch (a = -0.75, cells beyond the edge repeat it) on a
    grid of 1/16 cell, up to one cell from the cell of highest logit. D2 and torchvision resize the map to the
    box's whole pixels by the same kernel and take the best pixel. So where a cell spans 1 to 16 pixels,
    theirs is the point of a coarser grid next to the same peak: half a pixel away, give or take our own half
    step. In smaller boxes ours is finer than the pixel; in larger ones it resolves 1/16 cell. Sides under one
    pixel count as one, as there.
    """
    count, size, _, points = logits.shape
    maps = logits.astype(jnp.float32).reshape(count, size * size, points)
    best = jnp.argmax(maps, axis=1)  # [N K]
    y, x = best // size, best % size
    taps_y = jnp.clip(y[:, None] + _TAPS[:, None], 0, size - 1)  # [N 1 K] + [5 1]
    taps_x = jnp.clip(x[:, None] + _TAPS[:, None], 0, size - 1)
    taps = taps_y[:, :, None] * size + taps_x[:, None]  # [N 5 5 K]
    patch = jnp.take_along_axis(maps, taps.reshape(count, -1, points), axis=1).reshape(taps.shape)

    kernel = jnp.asarray(_cubic(_OFFSETS[:, None] - _TAPS))
    fine = jnp.einsum("ui,nijk,vj->nkuv", kernel, patch, kernel)
    on_map = _on_map(y, size)[..., :, None] & _on_map(x, size)[..., None, :]
    fine = jnp.where(on_map, fine, -jnp.inf).reshape(count, points, -1)
    peak = jnp.argmax(fine, axis=-1)
    score = jnp.take_along_axis(fine, peak[..., None], axis=-1)

    offset = jnp.stack(jnp.unravel_index(peak, (len(_OFFSETS),) * 2)[::-1], axis=-1)
    cell = jnp.stack([x, y], axis=-1) + jnp.asarray(_OFFSETS)[offset]  # [N K 2]
    boxes = boxes.astype(jnp.float32)[:, None]
    side = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)
    return jnp.concatenate([boxes[..., :2] + (cell + 0.5) * side / size, score], axis=-1)


def _on_map(cell: Int32[Array, "n k"], size: int) -> Bool[Array, "n k u"]:
    """Which offsets from ``cell`` are on the map: it reaches half a cell beyond its outer centres."""
    position = cell[..., None] + jnp.asarray(_OFFSETS)
    return (position >= -0.5) & (position <= size - 0.5)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Weights of Keys' cubic convolution kernel with a = -0.75 (torch's) at distances in cells."""
    a, d = -0.75, np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0)).astype(np.float32)
