"""The keypoint head: one map per keypoint, whose softmax over all cells locates it (paper 5)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mrcnn_jax.models.convs import ConvStack
from mrcnn_jax.models.deconv import Deconv4x4


class KeypointHead(nnx.Module):
    """3x3 convolutions, a stride-2 4x4 deconvolution to a map per keypoint, 2x bilinear upsampling."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_convs: int,
        num_keypoints: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.convs = ConvStack(in_channels, channels, num_convs=num_convs, dtype=dtype, rngs=rngs)
        self.kps_score_lowres = Deconv4x4(channels, num_keypoints, dtype=dtype, rngs=rngs)

    def __call__(
        self, regions: Float[Array, "n p p c"], valid: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n m m k"]:
        """Each keypoint's logits over the cells of its region, M = 4 P, float32."""
        x = self.kps_score_lowres(self.convs(regions, valid)).astype(jnp.float32)
        n, h, w, k = x.shape
        return jax.image.resize(x, (n, 2 * h, 2 * w, k), "bilinear")
