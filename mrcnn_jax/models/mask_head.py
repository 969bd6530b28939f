"""The mask head: a small fully convolutional network on each region (paper 3, figure 4)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.convs import Conv, ConvStack
from mrcnn_jax.models.deconv import Deconv2x2, FourCells, interleave
from mrcnn_jax.models.label_masks import LabelMasks
from mrcnn_jax.models.mask_fc_head import MaskFCHead
from mrcnn_jax.ops.relu import relu


class MaskHead(LabelMasks):
    """3x3 convolutions (or none), a 2x2 deconvolution, and one logit per cell and category.

    Only the logits for a region's own category are used (paper 3), so only these are computed; with
    ``softmax`` those of all classes are needed.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_convs: int,
        norm: str = "",
        num_classes: int,
        softmax: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.convs = ConvStack(in_channels, channels, num_convs=num_convs, norm=norm, dtype=dtype, rngs=rngs)
        self.conv5_mask = Deconv2x2(self.convs.out_channels, channels, dtype=dtype, rngs=rngs)
        self.mask_fcn_logits = Conv(
            channels,
            num_classes + softmax,
            1,
            kernel_init=nnx.initializers.normal(0.001),
            dtype=dtype,
            rngs=rngs,
        )
        self.softmax = softmax

    def _of_labels(self, regions: Array, labels: Array, valid: Array | None) -> Float[Array, "n m m"]:
        cells = self._cells(regions, valid)
        category = jnp.maximum(labels - 1, 0)
        kernel, bias = self.mask_fcn_logits.kernel, self.mask_fcn_logits.bias
        assert bias is not None
        kernels = kernel[...][0, 0].T[category].astype(cells[0].dtype)
        logits = interleave(_each(lambda x: jnp.einsum("nijc,nc->nij", x, kernels), cells))
        return logits.astype(jnp.float32) + bias[...][category, None, None]

    def _of_all_classes(
        self, function: Callable[[Array, Array], Array], regions: Array, labels: Array, valid: Array | None
    ) -> Float[Array, "n m m *_"]:
        def of_cell(x: Array) -> Array:
            return function(self.mask_fcn_logits(x).astype(jnp.float32), labels)

        return interleave(_each(of_cell, self._cells(regions, valid)))

    def _cells(self, regions: Float[Array, "n p p c"], valid: Bool[Array, " n"] | None) -> FourCells:
        return _each(relu, self.conv5_mask(self.convs(regions, valid)))


def _each(function: Callable[[Array], Array], cells: FourCells) -> FourCells:
    upper_left, upper_right, lower_left, lower_right = map(function, cells)
    return upper_left, upper_right, lower_left, lower_right


def make_mask_head(
    config: ModelConfig, channels: int, *, pool_size: int, num_classes: int, **kwargs: Any
) -> MaskHead | MaskFCHead:
    """The mask head that ``config`` describes, for regions of ``pool_size`` x ``pool_size`` cells."""
    kwargs |= {
        "num_classes": 1 if config.mask_agnostic else num_classes,
        "softmax": config.mask_loss == "softmax",
    }
    if config.mask_fcs:
        return MaskFCHead(
            channels, config.mask_fc_channels, pool_size=pool_size, num_fcs=config.mask_fcs, **kwargs
        )
    return MaskHead(
        channels, config.mask_channels, num_convs=config.mask_convs, norm=config.mask_norm, **kwargs
    )
