"""The feature pyramid network (FPN, arXiv 1612.03144)."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.canvas import Inside, cut
from mrcnn_jax.models.convs import ConvNorm

xavier_uniform = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")


def upsample_nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """``x`` with every cell repeated twice along height and width."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


class FPN(nnx.Module):
    """Lateral 1x1 convolutions, a top-down path, and a 3x3 convolution at each level.

    ``p6`` is every second cell of ``p5`` (a max pool of kernel 1 and stride 2); only the RPN reads it.
    """

    def __init__(
        self,
        in_channels: dict[str, int],
        channels: int,
        *,
        norm: str = "",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        conv = partial(ConvNorm, norm=norm, kernel_init=xavier_uniform, dtype=dtype, rngs=rngs)
        self.inner = nnx.List([conv(c, channels, 1) for c in in_channels.values()])
        self.layer = nnx.List([conv(channels, channels, 3) for _ in in_channels])

    def __call__(
        self, features: dict[str, Float[Array, "b _ _ _"]], inside: dict[str, Inside]
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Features ``p2`` to ``p6`` from ``c2`` to ``c5``, each half the size of the one before."""
        masks = [inside[level] for level in features]
        outputs = nnx.remat(FPN._outputs)(self, list(features.values()), masks)
        pyramid = {f"p{level}": p for level, p in enumerate(outputs, start=2)}
        return pyramid | {"p6": pyramid["p5"][:, ::2, ::2]}

    def _outputs(self, features: list[Array], masks: list[Inside]) -> list[Float[Array, "b _ _ _"]]:
        """Features ``p2`` to ``p5``.

        For the gradient what is merged is computed again, by 1x1 convolutions. Kept it would be as large as
        the outputs.
        """
        laterals = [inner(c, mask) for inner, c, mask in zip(self.inner, features, masks, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.append(lateral + upsample_nearest(merged[-1]))
        return [
            layer(cut(m, mask), mask)
            for layer, m, mask in zip(self.layer, reversed(merged), masks, strict=True)
        ]
