"""The box head: classifies each region and refines its box (Faster R-CNN, FPN 4.2)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.models.convs import ConvStack, apply_linear
from mrcnn_jax.models.fpn import xavier_uniform
from mrcnn_jax.ops.relu import relu


class BoxHead(nnx.Module):
    """3x3 convolutions, fully connected layers, then class logits and per-category box deltas.

    There may be no convolutions and no fully connected layers; without the latter, each region is averaged
    over its cells (as in ResNet). A class-``agnostic`` head has one set of box deltas for all categories.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        pool_size: int,
        num_convs: int = 0,
        norm: str = "",
        num_fcs: int = 2,
        num_classes: int,
        agnostic: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int, init: nnx.Initializer) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        self.convs = ConvStack(
            in_channels, in_channels, num_convs=num_convs, norm=norm, dtype=dtype, rngs=rngs
        )
        inputs = [in_channels * pool_size**2, *[channels] * num_fcs][:num_fcs]
        self.fcs = nnx.List([linear(count, channels, xavier_uniform) for count in inputs])
        features = channels if num_fcs else in_channels
        self.cls_score = linear(features, num_classes + 1, nnx.initializers.normal(0.01))
        boxes = 1 if agnostic else num_classes
        self.bbox_pred = linear(features, boxes * 4, nnx.initializers.normal(0.001))

    def __call__(
        self, regions: Float[Array, "n p p c"], valid: Bool[Array, " n"] | None = None
    ) -> tuple[Float[Array, "n l"], Float[Array, "n k 4"]]:
        """Class logits (0 is background) and box deltas for categories 1 to K, or K = 1 for all, float32.

        Batch norm uses only the ``valid`` regions.
        """
        x = self.convs(regions, valid)
        x = x.reshape(len(x), -1) if self.fcs else x.mean(axis=(1, 2))
        for fc in self.fcs:
            x = relu(apply_linear(fc, x))
        logits = apply_linear(self.cls_score, x).astype(jnp.float32)
        deltas = apply_linear(self.bbox_pred, x).astype(jnp.float32)
        return logits, deltas.reshape(len(x), -1, 4)
