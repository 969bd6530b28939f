"""The box head: which category a region holds, and where exactly (Faster R-CNN, FPN 4.2)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.fpn import xavier_uniform

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class BoxHead(nnx.Module):
    """Two fully connected layers, then class logits and box deltas per category."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        pool_size: int,
        num_classes: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int, init: nnx.Initializer) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        self.fc6 = linear(in_channels * pool_size**2, channels, xavier_uniform)
        self.fc7 = linear(channels, channels, xavier_uniform)
        self.cls_score = linear(channels, num_classes + 1, nnx.initializers.normal(0.01))
        self.bbox_pred = linear(channels, num_classes * 4, nnx.initializers.normal(0.001))

    def __call__(self, regions: Float[Array, "n p p c"]) -> tuple[Float[Array, "n l"], Float[Array, "n k 4"]]:
        """Class logits (0 is background) and box deltas of categories 1 to K, float32."""
        x = regions.reshape(len(regions), -1)
        x = nnx.relu(self.fc7(nnx.relu(self.fc6(x))))
        logits = self.cls_score(x).astype(jnp.float32)
        deltas = self.bbox_pred(x).astype(jnp.float32)
        return logits, deltas.reshape(len(x), -1, 4)
