"""ResNet's stem: a convolution of 7x7 cells, a norm, ReLU and a max pool, to a fourth of an image's size.

Shapes: B images of H x W pixels and C channels, D channels of the map; N strips of S columns of an image.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from mrcnn_jax.models.canvas import cells, map_mask, mask_out
from mrcnn_jax.models.convs import Conv
from mrcnn_jax.models.folding import Folded
from mrcnn_jax.models.norm import Norm
from mrcnn_jax.ops.relu import relu
from mrcnn_jax.runtime.platforms import platform

_LANES = 128  # of a TPU's registers
_MARGIN = (6, 2)  # columns that a strip shows of the ones beside it


def apply_stem(
    conv: Conv, norm: Norm | Folded, images: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None
) -> Float[Array, "b h4 w4 d"]:
    """The map of images that are zero beyond ``sizes``, which are the whole of them if it is None."""
    if platform() == "tpu" and isinstance(norm, Folded):
        count = _strip_count(images.shape)
        if count > 1:
            return in_strips(conv, images, sizes, count)
    mask = map_mask(images.shape[1:3], sizes, 2)
    x = relu(mask_out(norm(conv(images), mask=mask), mask))
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def in_strips(
    conv: Conv, images: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, count: int
) -> Float[Array, "b h4 w4 d"]:
    """:func:`apply_stem` without a norm, on ``count`` strips of columns: the form for a TPU.

    A TPU's registers hold 128 channels, of which an image has 3, and XLA moves data many times to fill them.
    The strips take the batch's axis, which fills them as well. For one image on a v5e, XLA estimates 0.5 ms
    where the plain form takes 2.6, for eight images 10 instead of 20.

    ``count`` must divide the columns into multiples of four.
    """
    b, h, w, _ = images.shape
    side = w // count
    x = conv(_overlapping(images, count, side))
    x = x[:, :, _MARGIN[0] // 2 - 1 : side // 2 + 3]  # from one column before the strip's to its last
    column = side // 2 * jnp.arange(count)[:, None] + jnp.arange(-1, side // 2)
    rows, columns = cells(jnp.asarray([[h, w]]) if sizes is None else sizes, 2).T[..., None]
    within = (column >= 0) & (column < columns[..., None])  # [B N S/2+1]
    mask = (jnp.arange(h // 2) < rows)[:, None, :, None] & within[:, :, None]
    mask = jnp.broadcast_to(mask, (b, *mask.shape[1:])).reshape(b * count, *mask.shape[2:], 1)
    x = nnx.max_pool(relu(mask_out(x, mask)), (3, 3), strides=(2, 2), padding=((1, 1), (0, 0)))
    x = x.reshape(b, count, *x.shape[1:]).swapaxes(1, 2)
    return x.reshape(b, h // 4, w // 4, -1)


def _overlapping(images: Float[Array, "b h w c"], count: int, side: int) -> Float[Array, "bn h s c"]:
    """Strips of ``side`` columns with the margins around them, zero beyond the images."""
    b, h, _, c = images.shape
    before, after = _MARGIN
    padded = jnp.pad(images, ((0, 0), (0, 0), (before, side - before), (0, 0)))
    strips = padded.reshape(b, h, count + 1, side, c)
    strips = jnp.concatenate([strips[:, :, :-1], strips[:, :, 1:, : before + after]], axis=3)
    return strips.swapaxes(1, 2).reshape(b * count, h, side + before + after, c)


def _strip_count(shape: tuple[int, ...]) -> int:
    """The most strips with which a register holds all images of a device; 1 if they cannot be cut."""
    b, h, w, _ = shape
    devices = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    most = _LANES // -(-b // devices) if h % 4 == 0 else 1
    return max((n for n in range(1, most + 1) if w % (4 * n) == 0 and w // n >= sum(_MARGIN)), default=1)
