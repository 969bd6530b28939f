"""RegNetX and RegNetY (arXiv 2003.13678), images to feature maps C2 to C5, as in torchvision and Detectron2.

The masks ``before`` and ``after`` mark the cells of a block's input and output that belong to an image: see
``canvas``.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.canvas import Mask, map_mask, mask_out
from mrcnn_jax.models.convs import Conv, he_normal
from mrcnn_jax.models.resnet import (
    MakeNorm,
    apply_shortcut,
    apply_stage,
    make_shortcut,
    plain_conv,
    recomputed_stages,
    stage_norm,
)
from mrcnn_jax.ops.relu import relu


class Size(NamedTuple):
    """A model of the paper's design space, at a ``backbone_width`` of 64."""

    blocks: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    group_width: int  # channels of a group of the 3x3 convolutions, but at most all that there are
    squeezed: float  # channels within a squeeze-and-excitation, as a share of the block's input; 0: none


# Those of 4 GF are pycls's and Detectron2's, the others also torchvision's.
SIZES = {
    "regnetx_400mf": Size((1, 2, 7, 12), (32, 64, 160, 400), 16, 0.0),
    "regnetx_800mf": Size((1, 3, 7, 5), (64, 128, 288, 672), 16, 0.0),
    "regnetx_1_6gf": Size((2, 4, 10, 2), (72, 168, 408, 912), 24, 0.0),
    "regnetx_3_2gf": Size((2, 6, 15, 2), (96, 192, 432, 1008), 48, 0.0),
    "regnetx_4gf": Size((2, 5, 14, 2), (80, 240, 560, 1360), 40, 0.0),
    "regnetx_8gf": Size((2, 5, 15, 1), (80, 240, 720, 1920), 120, 0.0),
    "regnetx_16gf": Size((2, 6, 13, 1), (256, 512, 896, 2048), 128, 0.0),
    "regnetx_32gf": Size((2, 7, 13, 1), (336, 672, 1344, 2520), 168, 0.0),
    "regnety_400mf": Size((1, 3, 6, 6), (48, 104, 208, 440), 8, 0.25),
    "regnety_800mf": Size((1, 3, 8, 2), (64, 144, 320, 784), 16, 0.25),
    "regnety_1_6gf": Size((2, 6, 17, 2), (48, 120, 336, 888), 24, 0.25),
    "regnety_3_2gf": Size((2, 5, 13, 1), (72, 216, 576, 1512), 24, 0.25),
    "regnety_4gf": Size((2, 6, 12, 2), (128, 192, 512, 1088), 64, 0.25),
    "regnety_8gf": Size((2, 4, 10, 1), (224, 448, 896, 2016), 56, 0.25),
    "regnety_16gf": Size((2, 4, 11, 1), (224, 448, 1232, 3024), 112, 0.25),
    "regnety_32gf": Size((2, 5, 12, 1), (232, 696, 1392, 3712), 232, 0.25),
}
_STEM = 32  # channels
_STAGES = (("stem", "stem_norm"), ("s1",), ("s2",), ("s3",), ("s4",))


class SqueezeExcitation(nnx.Module):
    """Multiplies each channel by a number that the means of all channels decide (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        conv = partial(Conv, kernel=1, kernel_init=he_normal, dtype=dtype, rngs=rngs)
        self.reduce = conv(channels, squeezed)
        self.expand = conv(squeezed, channels)

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask) -> Float[Array, "b h w c"]:
        sums = mask_out(x, mask).sum(axis=(1, 2), keepdims=True, dtype=jnp.float32)
        count = x.shape[1] * x.shape[2] if mask is None else mask.sum(axis=(1, 2), keepdims=True)
        factors = self.expand(relu(self.reduce((sums / count).astype(x.dtype))))
        return x * jax.nn.sigmoid(factors)


class Block(nnx.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of equal widths, and a shortcut."""

    conv_norms = (
        ("a", "a_norm"),
        ("b", "b_norm"),
        ("c", "c_norm"),
        ("downsample.0", "downsample.1"),
    )

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        group_width: int,
        squeezed: float,
        norm: MakeNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        conv = partial(plain_conv, dtype=dtype, rngs=rngs)
        self.a = conv(in_channels, channels, 1, 1)
        self.a_norm = norm(channels)
        self.b = conv(channels, channels, 3, stride, groups=channels // group_width)
        self.b_norm = norm(channels)
        self.se = (
            SqueezeExcitation(channels, round(in_channels * squeezed), dtype=dtype, rngs=rngs)
            if squeezed
            else None
        )
        self.c = conv(channels, channels, 1, 1)
        self.c_norm = norm(channels)
        self.downsample = make_shortcut(in_channels, channels, stride, norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], before: Mask, after: Mask) -> Float[Array, "b h2 w2 d"]:
        shortcut = apply_shortcut(self.downsample, x, after)
        x = relu(mask_out(self.a_norm(self.a(x), mask=before), before))
        x = relu(self.b_norm(self.b(x), mask=after))
        if self.se is not None:
            x = self.se(x, after)
        return relu(self.c_norm(self.c(x), mask=after) + shortcut)


class RegNet(nnx.Module):
    """RegNet without its classifier: stages ``s1`` to ``s4`` return C2 to C5, at strides 4, 8, 16 and 32."""

    conv_norms = (("stem", "stem_norm"),)

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        size = SIZES[config.backbone]

        def narrow(channels: int) -> int:
            return channels * config.backbone_width // 64

        in_channels = narrow(_STEM)
        self.stem = plain_conv(len(config.pixel_mean), in_channels, 3, 2, dtype=dtype, rngs=rngs)
        self.stem_norm = stage_norm(config, 0, dtype=dtype, rngs=rngs)(in_channels)
        self.frozen_stages = config.backbone_frozen_stages
        self.recomputed_stages = config.backbone_recomputed_stages
        self.strides = {f"c{stage + 1}": 2 ** (stage + 1) for stage in range(1, 5)}
        self.channels: dict[str, int] = {}
        for stage, (count, channels) in enumerate(zip(size.blocks, size.channels, strict=True), start=1):
            make = partial(
                Block,
                group_width=narrow(min(size.group_width, channels)),
                squeezed=size.squeezed,
                norm=stage_norm(config, stage, dtype=dtype, rngs=rngs),
                dtype=dtype,
                rngs=rngs,
            )
            blocks = [make(in_channels, narrow(channels), stride=2)]
            in_channels = narrow(channels)
            blocks += [make(in_channels, in_channels, stride=1) for _ in range(count - 1)]
            setattr(self, f"s{stage}", nnx.List(blocks))
            self.channels[f"c{stage + 1}"] = in_channels

    def __call__(
        self,
        images: Float[Array, "b h w n"],
        sizes: Int[Array, "b 2"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Feature maps ``c2`` to ``c5`` of normalised images, which must be zero beyond ``sizes``.

        Nothing is random, so ``keys`` are not read.
        """
        mask_at = partial(map_mask, images.shape[1:3], sizes)
        before, features = mask_at(2), {}
        x: Any = relu(mask_out(self.stem_norm(self.stem(images), mask=before), before))
        recomputed = recomputed_stages(self.recomputed_stages)
        for number, (name, stride) in enumerate(self.strides.items(), start=1):
            after = mask_at(stride)
            apply = nnx.remat(apply_stage) if number <= recomputed else apply_stage
            x = apply(getattr(self, f"s{number}"), x, before, after)
            features[name], before = x, after
        return features

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether the parameter at ``path`` in this module belongs to a frozen stage."""
        return any(path[0] in names for names in _STAGES[: self.frozen_stages])
