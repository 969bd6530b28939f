"""Swin transformers (arXiv 2103.14030): images to feature maps C2 to C5.

Blocks attend within windows of 7 x 7 cells, every second block within windows that are shifted by 3. As in
the paper's detector and MMDetection's, a map is filled with zeros, after the norm, to whole windows. These
zeros take part in attention, and they lie where the image ends, not the canvas: see ``pairs_of_shifted``.

Attributes are named as in the paper's code, apart from ``four_stages``, where ``downsample`` belongs to the
stage after it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.canvas import Mask, mask_out
from mrcnn_jax.models.convs import apply_linear, make_linear
from mrcnn_jax.models.drop_path import Keys, drop_path
from mrcnn_jax.models.four_stages import FourStages
from mrcnn_jax.models.norm import make_norm
from mrcnn_jax.ops.attention import partition, unpartition

WINDOW = 7  # cells
_SHIFT = WINDOW // 2
_MLP_RATIO = 4
_EPSILON = 1e-5  # of every layer norm


class Size(NamedTuple):
    """A model of the paper, at a ``backbone_width`` of 64."""

    depths: tuple[int, int, int, int]
    channels: int  # of the first stage
    heads: tuple[int, int, int, int]


SIZES = {
    "swin_t": Size((2, 2, 6, 2), 96, (3, 6, 12, 24)),
    "swin_s": Size((2, 2, 18, 2), 96, (3, 6, 12, 24)),
}


class Attention(nnx.Module):
    """Multi-head self-attention within windows, with a learned bias for each head and relative position.

    The table's rows are the positions from (-6, -6) to (6, 6), row by row.
    """

    def __init__(self, channels: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.qkv = make_linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.proj = make_linear(channels, channels, dtype=dtype, rngs=rngs)
        init = nnx.initializers.normal(0.02)
        self.relative_position_bias_table = nnx.Param(init(rngs.params(), ((2 * WINDOW - 1) ** 2, heads)))
        self.heads = heads

    def __call__(
        self, windows: Float[Array, "n s s c"], pairs: Bool[Array, "n 1 k k"] | None
    ) -> Float[Array, "n s s c"]:
        """Each cell attends to those of its window, or to those of them that ``pairs`` allows."""
        n, cells = len(windows), WINDOW * WINDOW
        qkv = apply_linear(self.qkv, windows).reshape(n, cells, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        bias = self.relative_position_bias_table[...][_relative_positions()]  # [K K heads]
        mixed = jax.nn.dot_product_attention(q, k, v, bias=bias.transpose(2, 0, 1)[None], mask=pairs)
        return apply_linear(self.proj, mixed.reshape(windows.shape))


class Block(nnx.Module):
    """Attention and two fully connected layers, each after a layer norm and added to its input."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        shifted: bool,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        norm = partial(make_norm, "layer", channels, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        self.attn = Attention(channels, heads, dtype=dtype, rngs=rngs)
        self.norm2 = norm()
        self.fc1 = make_linear(channels, _MLP_RATIO * channels, dtype=dtype, rngs=rngs)
        self.fc2 = make_linear(_MLP_RATIO * channels, channels, dtype=dtype, rngs=rngs)
        self.shifted = shifted
        self.drop_path = drop_path

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask, keys: Keys) -> Float[Array, "b h w c"]:
        attended = self._attend(mask_out(self.norm1(x), mask), mask)
        x = x + drop_path(attended, keys, 0, rate=self.drop_path)
        hidden = jax.nn.gelu(apply_linear(self.fc1, self.norm2(x)), approximate=False)
        return x + drop_path(apply_linear(self.fc2, hidden), keys, 1, rate=self.drop_path)

    def _attend(self, x: Float[Array, "b h w c"], mask: Mask) -> Float[Array, "b h w c"]:
        b, h, w, _ = x.shape
        if not self.shifted:
            return unpartition(self.attn(partition(x, WINDOW), None), (h, w))
        mask = jnp.ones((b, h, w, 1), bool) if mask is None else mask
        below, right = -h % WINDOW, -w % WINDOW
        filled = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
        windows = self.attn(partition(_roll(filled, -_SHIFT), WINDOW), pairs_of_shifted(mask))
        return _roll(unpartition(windows, (h + below, w + right)), _SHIFT)[:, :h, :w]


def pairs_of_shifted(mask: Bool[Array, "b h w 1"]) -> Bool[Array, "n 1 k k"]:
    """Which pairs of cells in each shifted window of a canvas attend to one another.

    ``mask`` marks the cells of images. An image alone would be filled up to the whole windows, not shifted,
    that it has cells of; cells beyond these see one another only. Shifting is cyclic: the last row and column
    of windows hold the canvas's first 3 rows and columns of cells beside its last 4, which do not see each
    other, either. So the pairs of an image are the same on any canvas.

    Maps of a single window are shifted, too, as in MMDetection's and the paper's detector; torchvision's
    classifier does not shift them.
    """
    # An image has cells of a window if it has the first.
    inside = mask[:, ::WINDOW, ::WINDOW].repeat(WINDOW, axis=1).repeat(WINDOW, axis=2)
    rows, columns = (jnp.arange(side) < _SHIFT for side in inside.shape[1:3])
    quarter = 1 + 2 * rows[:, None, None] + columns[None, :, None]  # [H 1 1] + [1 W 1]
    part = partition(_roll(jnp.where(inside, quarter, 0), -_SHIFT), WINDOW).reshape(-1, 1, WINDOW * WINDOW)
    return part[..., :, None] == part[..., None, :]


class PatchMerging(nnx.Module):
    """Squares of 2 x 2 cells become one, by a layer norm and a linear layer.

    The channels of its inputs are those of the upper left cell, then of the lower left, the upper right and
    the lower right. (In MMDetection's files, the four cells of a channel are neighbours, row by row.)
    """

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm = make_norm("layer", 4 * channels, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.reduction = make_linear(4 * channels, 2 * channels, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        b, h, w, c = x.shape
        squares = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
        return apply_linear(self.reduction, self.norm(squares.reshape(b, h // 2, w // 2, 4 * c)))


class Swin(FourStages):
    """Swin-T or S."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        size = SIZES[config.backbone]
        channels = size.channels * config.backbone_width // 64

        def make_block(stage: int, number: int, share: float) -> Block:
            return Block(
                channels * 2**stage,
                size.heads[stage],
                shifted=number % 2 == 1,
                drop_path=share,
                dtype=dtype,
                rngs=rngs,
            )

        super().__init__(
            config,
            depths=size.depths,
            channels=channels,
            make_block=make_block,
            make_downsample=partial(PatchMerging, dtype=dtype, rngs=rngs),
            epsilon=_EPSILON,
            dtype=dtype,
            rngs=rngs,
        )


def _roll(x: Array, shift: int) -> Array:
    return jnp.roll(x, (shift, shift), axis=(1, 2))


def _relative_positions() -> np.ndarray:
    """The row of the table for each pair of cells in a window, the attending cell first."""
    cells = np.stack(np.meshgrid(np.arange(WINDOW), np.arange(WINDOW), indexing="ij"), axis=-1).reshape(-1, 2)
    apart = cells[:, None] - cells[None, :] + WINDOW - 1
    return apart @ np.array([2 * WINDOW - 1, 1])
