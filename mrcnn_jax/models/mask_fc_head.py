"""The fully connected mask head, to compare the convolutional one with (paper table 2e)."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.convs import apply_linear
from mrcnn_jax.models.fpn import xavier_uniform
from mrcnn_jax.models.label_masks import LabelMasks
from mrcnn_jax.ops.relu import relu


class MaskFCHead(LabelMasks):
    """Fully connected layers with ReLU, and one that gives a logit for each category and cell.

    The last layer computes the logits of all categories: for those of a region's own category alone, its
    columns in the kernel would have to be gathered, 1024 x 28^2 values for each region.

    Args:
        pool_size: cells of a region, per axis; the masks have twice as many.
        softmax: whether there are logits of the background too, before those of the categories.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        pool_size: int,
        num_fcs: int,
        num_classes: int,
        softmax: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int, init: nnx.Initializer) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        inputs = [in_channels * pool_size**2, *[channels] * (num_fcs - 1)]
        self.fcs = nnx.List([linear(count, channels, xavier_uniform) for count in inputs])
        self.size, self.softmax = 2 * pool_size, softmax
        outputs = (num_classes + softmax) * self.size**2
        self.mask_fc_logits = linear(channels, outputs, nnx.initializers.normal(0.001))

    def _of_labels(self, regions: Array, labels: Array, valid: Array | None) -> Float[Array, "n m m"]:
        category = jnp.maximum(labels - 1, 0)
        return jnp.take_along_axis(self._all_logits(regions), category[:, None, None, None], axis=1)[:, 0]

    def _of_all_classes(
        self, function: Callable[[Array, Array], Array], regions: Array, labels: Array, valid: Array | None
    ) -> Float[Array, "n m m *_"]:
        return function(jnp.moveaxis(self._all_logits(regions), 1, -1), labels)

    def _all_logits(self, regions: Float[Array, "n p p c"]) -> Float[Array, "n l m m"]:
        x = regions.reshape(len(regions), -1)
        for fc in self.fcs:
            x = relu(apply_linear(fc, x))
        logits = apply_linear(self.mask_fc_logits, x).astype(jnp.float32)
        return logits.reshape(len(x), -1, self.size, self.size)
