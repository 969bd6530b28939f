"""Normalisation layers; each takes a map and, by keyword, a ``mask`` of the cells to include."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.canvas import Mask


class Frozen(nnx.Variable):
    """A value that is loaded with the weights and never changed by training."""


class FrozenBatchNorm(nnx.Module):
    """Batch normalisation with fixed statistics and a fixed affine map (paper 3.1, as in Detectron2)."""

    def __init__(self, channels: int, *, epsilon: float, dtype: DTypeLike) -> None:
        self.scale = Frozen(jnp.ones(channels))
        self.bias = Frozen(jnp.zeros(channels))
        self.mean = Frozen(jnp.zeros(channels))
        self.var = Frozen(jnp.ones(channels))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        scale, shift = scale_and_shift(self)
        return x * scale.astype(self.dtype) + shift.astype(self.dtype)


def scale_and_shift(norm: FrozenBatchNorm | nnx.BatchNorm) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """The factor and the offset that a batch norm applies to each channel in inference."""
    assert norm.scale is not None and norm.bias is not None  # make_norm creates both
    scale = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
    return scale, norm.bias[...] - norm.mean[...] * scale


class GroupNorm(nnx.GroupNorm):
    """Flax's group norm, with a mask that broadcasts over the channels."""

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        return super().__call__(x, mask=None if mask is None else jnp.broadcast_to(mask, x.shape))


class LayerNorm(nnx.LayerNorm):
    """Normalises the channels of each cell (arXiv 1607.06450), so a mask makes no difference."""

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        return super().__call__(x)


Norm = FrozenBatchNorm | nnx.BatchNorm | GroupNorm | LayerNorm

LAYER_EPSILON = 1e-6  # of every layer norm of ViTDet (arXiv 2203.16527)


def make_norm(kind: str, channels: int, *, epsilon: float, dtype: DTypeLike, rngs: nnx.Rngs) -> Norm:
    """A layer that normalises ``channels`` channels.

    Args:
        kind: "frozen_batch"; "batch", with statistics of the global batch, across all devices; "group": 32
            groups (arXiv 1803.08494), or fewer so that each has at least two channels; or "layer".
        epsilon: added to variances.
    """
    # Flax's fast variance, E[x^2] - E[x]^2, loses digits where the mean is large.
    match kind:
        case "frozen_batch":
            return FrozenBatchNorm(channels, epsilon=epsilon, dtype=dtype)
        case "batch":
            return nnx.BatchNorm(
                channels, momentum=0.9, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
            )
        case "group":
            groups = math.gcd(32, channels // 2)
            return GroupNorm(
                channels, num_groups=groups, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
            )
        case "layer":
            return LayerNorm(channels, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)
    raise ValueError(f"norm is {kind!r}; it must be 'frozen_batch', 'batch', 'group' or 'layer'")
