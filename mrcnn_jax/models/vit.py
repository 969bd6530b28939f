"""A plain vision transformer as a backbone (ViTDet, arXiv 2203.16527): images to one map of stride 16.

Most blocks attend within windows of 14 x 14 cells; the last of each quarter attends to the whole map. All of
the canvas is seen, its padding too, so images are padded to the canvas's size (``model.padding_multiple``).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.convs import PatchConv, apply_linear, make_linear
from mrcnn_jax.models.drop_path import Keys, drop_path, keys_of_block
from mrcnn_jax.models.norm import LAYER_EPSILON, make_norm
from mrcnn_jax.ops.attention import attend, partition, unpartition
from mrcnn_jax.ops.positions import relative_positions, resize_positions

PATCH = 16  # pixels
_WINDOW = 14  # cells
_QUARTERS = 4  # each ends with a block of global attention
_MLP_RATIO = 4
_POSITIONS = 14  # cells per axis, of an image of 224 pixels: that of pre-training
_GRID = 64  # cells per axis, of an image of 1024 pixels: that of the relative positions of global attention


class Size(NamedTuple):
    """A size of arXiv 2010.11929, at a ``backbone_width`` of 64."""

    channels: int
    depth: int
    heads: int


SIZES = {"vit_b": Size(768, 12, 12), "vit_l": Size(1024, 24, 16), "vit_h": Size(1280, 32, 16)}


class Attention(nnx.Module):
    """Multi-head self-attention over a square of ``cells`` x ``cells`` cells, or whatever map is given."""

    def __init__(self, channels: int, heads: int, cells: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.qkv = make_linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.proj = make_linear(channels, channels, dtype=dtype, rngs=rngs)
        self.rel_pos_h = nnx.Param(jnp.zeros((2 * cells - 1, channels // heads)))
        self.rel_pos_w = nnx.Param(jnp.zeros((2 * cells - 1, channels // heads)))
        self.heads = heads

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        _, h, w, _ = x.shape
        qkv = apply_linear(self.qkv, x)
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:3], 3, self.heads, -1), 3, 0)
        rows = relative_positions(self.rel_pos_h[...], h)
        columns = relative_positions(self.rel_pos_w[...], w)
        return apply_linear(self.proj, attend(q, k, v, rows, columns).reshape(x.shape))


class Block(nnx.Module):
    """Attention and two fully connected layers, each after a layer norm and added to its input."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        windowed: bool,
        drop_path: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        norm = partial(make_norm, "layer", channels, epsilon=LAYER_EPSILON, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        cells = _WINDOW if windowed else _GRID
        self.attn = Attention(channels, heads, cells, dtype=dtype, rngs=rngs)
        self.norm2 = norm()
        self.fc1 = make_linear(channels, _MLP_RATIO * channels, dtype=dtype, rngs=rngs)
        self.fc2 = make_linear(_MLP_RATIO * channels, channels, dtype=dtype, rngs=rngs)
        self.windowed = windowed
        self.drop_path = drop_path

    def __call__(self, x: Float[Array, "b h w c"], keys: Keys) -> Float[Array, "b h w c"]:
        _, h, w, _ = x.shape
        attended = self.norm1(x)
        if self.windowed:
            attended = unpartition(self.attn(partition(attended, _WINDOW)), (h, w))
        else:
            attended = self.attn(attended)
        x = x + drop_path(attended, keys, 0, rate=self.drop_path)
        hidden = jax.nn.gelu(apply_linear(self.fc1, self.norm2(x)), approximate=False)
        return x + drop_path(apply_linear(self.fc2, hidden), keys, 1, rate=self.drop_path)


class ViT(nnx.Module):
    """A vision transformer without class token, classifier and last norm; returns C4, at stride 16."""

    conv_norms = ()

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        size = SIZES[config.backbone]
        channels = size.channels * config.backbone_width // 64
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        inputs = len(config.pixel_mean)
        self.patch_embed = PatchConv(inputs, channels, PATCH, kernel_init=init, dtype=dtype, rngs=rngs)
        self.pos_embed = nnx.Param(
            nnx.initializers.normal(0.02)(rngs.params(), (_POSITIONS, _POSITIONS, channels))
        )
        self.per_quarter = size.depth // _QUARTERS
        self.blocks = nnx.List(
            Block(
                channels,
                size.heads,
                windowed=(number + 1) % self.per_quarter > 0,
                drop_path=config.backbone_drop_path * number / (size.depth - 1),
                dtype=dtype,
                rngs=rngs,
            )
            for number in range(size.depth)
        )
        self.recomputed_stages = config.backbone_recomputed_stages
        self.strides = {"c4": PATCH}
        self.channels = {"c4": channels}

    def __call__(
        self,
        images: Float[Array, "b h w n"],
        sizes: Int[Array, "b 2"] | None = None,
        keys: Keys = None,
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """The map ``c4`` of normalised images, padding included; ``keys`` drop paths of blocks at random."""
        x = self.patch_embed(images)
        _, h, w, _ = x.shape
        x = x + resize_positions(self.pos_embed[...], (h, w)).astype(x.dtype)
        recomputed = _QUARTERS if self.recomputed_stages < 0 else self.recomputed_stages
        for number, block in enumerate(self.blocks):
            apply = nnx.remat(_apply) if number < recomputed * self.per_quarter else _apply
            x = apply(block, x, keys_of_block(keys, number))
        return {"c4": x}

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Never: a ViT is trained as a whole."""
        return False


def _apply(block: Any, x: Float[Array, "b h w c"], keys: Keys) -> Float[Array, "b h w c"]:
    return block(x, keys)
