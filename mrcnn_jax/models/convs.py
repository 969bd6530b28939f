"""Convolution layers: plain, of patches, with a norm, and the stack at the start of the region heads; linear
layers.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.distributed.weights import apply_weights
from mrcnn_jax.models.canvas import Mask
from mrcnn_jax.models.norm import LAYER_EPSILON, make_norm
from mrcnn_jax.ops.conv import add_bias, convolve
from mrcnn_jax.ops.relu import relu

# Detectron2's c2_msra_fill
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")

NORM_EPSILON = 1e-5  # for batch and group norms outside the backbone


class Conv(nnx.Module):
    """A convolution like torch's, padded on every side by half the extent of its kernel.

    Flax's own layer adds the bias itself, and the bias's gradient would come too late: see ``add_bias``. Over
    several devices, the weights' gradients are summed in float32: see ``apply_weights``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: nnx.Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (kernel, kernel, in_channels // groups, channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.data(nnx.Param(jnp.zeros(channels)) if use_bias else None)
        self.options = {"stride": stride, "dilation": dilation, "groups": groups}
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        weights = self.kernel[...], None if self.bias is None else self.bias[...]
        return apply_weights(self._apply, weights, x.astype(self.dtype))

    def _apply(self, weights: tuple[Array, Array | None], x: Float[Array, "b h w c"]) -> Array:
        kernel, bias = weights
        x = convolve(x, kernel.astype(x.dtype), **self.options)
        return x if bias is None else add_bias(x, bias.astype(x.dtype))


class PatchConv(nnx.Module):
    """A convolution of ``patch`` x ``patch`` cells whose stride is as large: a product with every patch.

    The map's sides must be multiples of ``patch``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch: int,
        *,
        kernel_init: nnx.Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(kernel_init(rngs.params(), (patch, patch, in_channels, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.patch = patch
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        b, h, w, c = x.shape
        size = self.patch
        patches = x.reshape(b, h // size, size, w // size, size, c).swapaxes(2, 3)
        rows = patches.reshape(b, h // size, w // size, -1)
        kernel = self.kernel[...]
        weights = kernel.reshape(rows.shape[-1], -1), self.bias[...]
        return apply_weights(multiply, weights, rows.astype(self.dtype))


def make_linear(
    inputs: int, outputs: int, *, use_bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """A linear layer of a transformer: its kernel is drawn with a standard deviation of 0.02."""
    init = nnx.initializers.normal(0.02)
    return nnx.Linear(inputs, outputs, use_bias=use_bias, kernel_init=init, dtype=dtype, rngs=rngs)


def apply_linear(layer: nnx.Linear, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
    """``layer(x)``; over several devices, the weights' gradients are summed in float32, as in ``Conv``."""
    weights = layer.kernel[...], None if layer.bias is None else layer.bias[...]
    return apply_weights(multiply, weights, x.astype(layer.dtype))


def multiply(weights: tuple[Array, Array | None], x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
    """``x`` times a kernel ``[C D]``, and a bias, if any, added, both as they are cast to its dtype."""
    kernel, bias = weights
    x = x @ kernel.astype(x.dtype)
    return x if bias is None else add_bias(x, bias.astype(x.dtype))


class ConvNorm(nnx.Module):
    """A size-preserving convolution, followed by the norm that ``norm`` names or, if it is empty, a bias."""

    conv_norms = (("conv", "norm"),)

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
        self.conv = Conv(
            in_channels,
            channels,
            kernel,
            use_bias=not norm,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        epsilon = LAYER_EPSILON if norm == "layer" else NORM_EPSILON
        self.norm = make_norm(norm, channels, epsilon=epsilon, dtype=dtype, rngs=rngs) if norm else None

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask = None) -> Float[Array, "b h w d"]:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, mask=mask)


class ConvStack(nnx.Module):
    """``num_convs`` size-preserving 3x3 convolutions on regions, each followed by ReLU."""

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
        """The regions' features. Batch norm uses only the ``valid`` regions."""
        mask = None if valid is None else jnp.broadcast_to(valid[:, None, None, None], (*x.shape[:3], 1))
        for layer in self.layers:
            x = relu(layer(x, mask))
        return x
