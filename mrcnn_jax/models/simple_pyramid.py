"""The simple feature pyramid of ViTDet (arXiv 2203.16527): every level is made of one map alone."""

from collections.abc import Mapping
from functools import partial

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.canvas import Mask
from mrcnn_jax.models.convs import ConvNorm
from mrcnn_jax.models.deconv import Deconv2x2, interleave
from mrcnn_jax.models.fpn import xavier_uniform
from mrcnn_jax.models.norm import LAYER_EPSILON, make_norm


class SimplePyramid(nnx.Module):
    """``p2`` to ``p6`` of one map of stride 16: upsampled by deconvolutions, as it is, or pooled.

    A 1x1 and a 3x3 convolution follow on each level but the last, which is every second cell of ``p5``. The
    interface is that of ``FPN``.
    """

    def __init__(
        self, in_channels: int, channels: int, *, norm: str, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        deconv = partial(Deconv2x2, dtype=dtype, rngs=rngs)
        conv = partial(ConvNorm, norm=norm, kernel_init=xavier_uniform, dtype=dtype, rngs=rngs)
        half, quarter = in_channels // 2, in_channels // 4
        self.up2 = nnx.List([deconv(in_channels, half), deconv(half, quarter)])
        self.up2_norm = make_norm("layer", half, epsilon=LAYER_EPSILON, dtype=dtype, rngs=rngs)
        self.up3 = deconv(in_channels, half)
        self.inner = nnx.List([conv(c, channels, 1) for c in (quarter, half, in_channels, in_channels)])
        self.layer = nnx.List([conv(channels, channels, 3) for _ in self.inner])
        self.strides = {f"p{number}": 2**number for number in range(2, 7)}
        self.pooled_levels = tuple(self.strides)[:-1]

    def __call__(
        self, features: Mapping[str, Float[Array, "b _ _ _"]], masks: Mapping[str, Mask]
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """The pyramid of the backbone's only map. Padding is part of it, so the masks are not read."""
        (x,) = features.values()
        finer = jax.nn.gelu(self.up2_norm(interleave(self.up2[0](x))), approximate=False)
        maps = [
            interleave(self.up2[1](finer)),
            interleave(self.up3(x)),
            x,
            nnx.max_pool(x, (2, 2), strides=(2, 2)),
        ]
        outputs = [layer(inner(x)) for inner, layer, x in zip(self.inner, self.layer, maps, strict=True)]
        return dict(zip(self.strides, [*outputs, outputs[-1][:, ::2, ::2]], strict=True))
