"""A convolution with its norm, and the stack of them with which the heads of regions begin."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.models.norm import Mask, make_norm
from mrcnn_jax.ops.convolution import convolve

# Detectron2's c2_msra_fill
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")

NORM_EPSILON = 1e-5  # of norms outside of the backbone


class ConvNorm(nnx.Module):
    """A convolution that keeps the size, with a bias or, if ``norm`` names one, with a norm after it."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        *,
        norm: str,
        kernel_init: nnx.Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = nnx.Conv(
            in_channels,
            channels,
            (kernel, kernel),
            padding=kernel // 2,
            use_bias=not norm,
            kernel_init=kernel_init,
            conv_general_dilated=convolve,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = make_norm(norm, channels, epsilon=NORM_EPSILON, dtype=dtype, rngs=rngs) if norm else None

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask = None) -> Float[Array, "b h w d"]:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, mask=mask)


class ConvStack(nnx.Module):
    """``num_convs`` 3x3 convolutions with ReLU on regions; the size stays."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_convs: int,
        norm: str = "",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        inputs = [in_channels, *[channels] * num_convs][:num_convs]
        self.layers = nnx.List(
            ConvNorm(c, channels, 3, norm=norm, kernel_init=he_normal, dtype=dtype, rngs=rngs) for c in inputs
        )
        self.out_channels = channels if num_convs else in_channels

    def __call__(
        self, x: Float[Array, "n p p c"], valid: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n p p d"]:
        """Batch norm counts the ``valid`` regions only."""
        mask = None if valid is None else jnp.broadcast_to(valid[:, None, None, None], (*x.shape[:3], 1))
        for layer in self.layers:
            x = nnx.relu(layer(x, mask))
        return x
