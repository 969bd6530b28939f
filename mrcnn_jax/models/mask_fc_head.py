"""The fully connected mask head, to compare the convolutional one with (paper table 2e)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from mrcnn_jax.models.convs import apply_linear
from mrcnn_jax.models.fpn import xavier_uniform
from mrcnn_jax.ops.masks import label_log_probabilities, label_margins
from mrcnn_jax.ops.relu import relu


class MaskFCHead(nnx.Module):
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

    def __call__(
        self,
        regions: Float[Array, "n p p c"],
        labels: Int[Array, " n"],
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n m m"]:
        """As ``MaskHead``'s; no layer depends on which regions are ``valid``."""
        logits = self._all_logits(regions)
        if self.softmax:
            return label_margins(jnp.moveaxis(logits, 1, -1), labels)
        category = jnp.maximum(labels - 1, 0)
        return jnp.take_along_axis(logits, category[:, None, None, None], axis=1)[:, 0]

    def log_probabilities(
        self,
        regions: Float[Array, "n p p c"],
        labels: Int[Array, " n"],
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n m m 2"]:
        """As ``MaskHead.log_probabilities``."""
        return label_log_probabilities(jnp.moveaxis(self._all_logits(regions), 1, -1), labels)

    def _all_logits(self, regions: Float[Array, "n p p c"]) -> Float[Array, "n l m m"]:
        x = regions.reshape(len(regions), -1)
        for fc in self.fcs:
            x = relu(apply_linear(fc, x))
        logits = apply_linear(self.mask_fc_logits, x).astype(jnp.float32)
        return logits.reshape(len(x), -1, self.size, self.size)
