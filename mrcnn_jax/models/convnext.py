"""ConvNeXt (arXiv 2201.03545): images to feature maps C2 to C5.

Attributes of a block are named as in the paper's code, apart from ``four_stages``.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.distributed.weights import apply_weights
from mrcnn_jax.models.canvas import Mask, mask_out
from mrcnn_jax.models.convs import Conv, PatchConv, apply_linear, make_linear
from mrcnn_jax.models.drop_path import Keys, drop_path
from mrcnn_jax.models.four_stages import FourStages
from mrcnn_jax.models.norm import LAYER_EPSILON, make_norm

_KERNEL = 7  # cells
_EXPANSION = 4
_LAYER_SCALE = 1e-6  # first value of the factor of each channel of a block's branch
_normal = nnx.initializers.normal(0.02)


class Size(NamedTuple):
    """A model of the paper, at a ``backbone_width`` of 64."""

    depths: tuple[int, int, int, int]
    channels: int  # of the first stage


SIZES = {"convnext_t": Size((3, 3, 9, 3), 96), "convnext_s": Size((3, 3, 27, 3), 96)}


class Block(nnx.Module):
    """A depthwise 7x7 convolution, a layer norm and two 1x1 convolutions, scaled and added to the input."""

    def __init__(self, channels: int, *, drop_path: float, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.dwconv = Conv(
            channels, channels, _KERNEL, groups=channels, kernel_init=_normal, dtype=dtype, rngs=rngs
        )
        self.norm = make_norm("layer", channels, epsilon=LAYER_EPSILON, dtype=dtype, rngs=rngs)
        self.pwconv1 = make_linear(channels, _EXPANSION * channels, dtype=dtype, rngs=rngs)
        self.pwconv2 = make_linear(_EXPANSION * channels, channels, dtype=dtype, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(channels, _LAYER_SCALE))
        self.drop_path = drop_path

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask, keys: Keys) -> Float[Array, "b h w c"]:
        branch = self.norm(self.dwconv(mask_out(x, mask)))
        hidden = jax.nn.gelu(apply_linear(self.pwconv1, branch), approximate=False)
        branch = apply_weights(_scale, self.gamma[...], apply_linear(self.pwconv2, hidden))
        return x + drop_path(branch, keys, 0, rate=self.drop_path)


class Downsample(nnx.Module):
    """A layer norm and a 2x2 convolution of stride 2."""

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm = make_norm("layer", channels, epsilon=LAYER_EPSILON, dtype=dtype, rngs=rngs)
        self.conv = PatchConv(channels, 2 * channels, 2, kernel_init=_normal, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.conv(self.norm(x))


class ConvNeXt(FourStages):
    """ConvNeXt-T or S."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        size = SIZES[config.backbone]
        channels = size.channels * config.backbone_width // 64

        def make_block(stage: int, number: int, share: float) -> Block:
            return Block(channels * 2**stage, drop_path=share, dtype=dtype, rngs=rngs)

        super().__init__(
            config,
            depths=size.depths,
            channels=channels,
            make_block=make_block,
            make_downsample=partial(Downsample, dtype=dtype, rngs=rngs),
            epsilon=LAYER_EPSILON,
            dtype=dtype,
            rngs=rngs,
        )


def _scale(gamma: Float[Array, " c"], x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    return gamma.astype(x.dtype) * x
