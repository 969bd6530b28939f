"""The mask head: a small fully convolutional network on each region (paper 3, figure 4)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from mrcnn_jax.models.convs import Conv, ConvStack
from mrcnn_jax.models.deconv import Deconv2x2, interleave
from mrcnn_jax.ops.relu import relu


class MaskHead(nnx.Module):
    """3x3 convolutions (or none), a 2x2 deconvolution, and one logit per cell and category.

    Only the logits for a region's own category are used (paper 3), so only these are computed.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_convs: int,
        norm: str = "",
        num_classes: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.convs = ConvStack(in_channels, channels, num_convs=num_convs, norm=norm, dtype=dtype, rngs=rngs)
        self.conv5_mask = Deconv2x2(self.convs.out_channels, channels, dtype=dtype, rngs=rngs)
        self.mask_fcn_logits = Conv(
            channels, num_classes, 1, kernel_init=nnx.initializers.normal(0.001), dtype=dtype, rngs=rngs
        )

    def __call__(
        self,
        regions: Float[Array, "n p p c"],
        labels: Int[Array, " n"],
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n m m"]:
        """Mask logits for the ``labels`` (1 to K) in each region's frame, M = 2 P, float32.

        Batch norm uses only the ``valid`` regions.
        """
        x = relu(self.conv5_mask(self.convs(regions, valid)))
        category = jnp.maximum(labels - 1, 0)
        kernel, bias = self.mask_fcn_logits.kernel, self.mask_fcn_logits.bias
        assert bias is not None
        kernels = kernel[...][0, 0].T[category].astype(x.dtype)
        logits = interleave(jnp.einsum("nijabc,nc->nijab", x, kernels)).astype(jnp.float32)
        return logits + bias[...][category, None, None]
