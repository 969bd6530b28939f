"""The feature pyramid network (FPN, arXiv 1612.03144)."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.distributed.spatial import all_rows
from mrcnn_jax.models.canvas import Mask, mask_out
from mrcnn_jax.models.convs import ConvNorm
from mrcnn_jax.runtime.platforms import by_platform, platform

xavier_uniform = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")


@jax.custom_vjp
def upsample_nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """``x`` with every cell repeated twice along height and width.

    Its gradient is summed in float32.
    """
    return by_platform({"tpu": _repeat_by_matmul, "default": _repeat_by_broadcasting}, x)


def _repeat_by_broadcasting(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _repeat_by_matmul(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The form for a TPU, whose tiles are columns by channels: repeating columns would move all data.

    Each result is one value times 1, so it is exact.
    """
    b, h, w, c = x.shape
    rows = jnp.broadcast_to(x[:, :, None], (b, h, 2, w, c)).reshape(b, 2 * h, w, c)
    column = (jnp.arange(2 * w)[:, None] // 2 == jnp.arange(w)).astype(x.dtype)
    return jnp.einsum("bhwc,vw->bhvc", rows, column, precision="highest")


def _upsample_backward(_: None, gradient: Array) -> tuple[Array]:
    """The sums over 2 x 2 cells. The two columns are taken as channels, so that no data is moved."""
    batch, height, width, channels = gradient.shape
    cells = gradient.reshape(batch, height // 2, 2, width // 2, 2 * channels)
    (a, b), (c, d) = (
        [cells[:, :, row, :, half].astype(jnp.float32) for half in (slice(channels), slice(channels, None))]
        for row in (0, 1)
    )
    return (((a + b) + (c + d)).astype(gradient.dtype),)


upsample_nearest.defvjp(lambda x: (upsample_nearest(x), None), _upsample_backward)


class FPN(nnx.Module):
    """Lateral 1x1 convolutions, a top-down path, and a 3x3 convolution at each level.

    Level ``p<n>`` has stride 2^n: ``p2`` has stride 4, and so on. The last level is every second cell of the
    one before (a max pool of kernel 1 and stride 2), and only the RPN uses it.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        in_strides: their strides in pixels, each twice the one before.
        fuse: what becomes of a map and the one above it, upsampled: their "sum", or half of it ("avg").
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        in_strides: Mapping[str, int],
        channels: int,
        *,
        norm: str = "",
        fuse: str = "sum",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.fuse = fuse
        conv = partial(ConvNorm, norm=norm, kernel_init=xavier_uniform, dtype=dtype, rngs=rngs)
        self.inner = nnx.List([conv(c, channels, 1) for c in in_channels.values()])
        self.layer = nnx.List([conv(channels, channels, 3) for _ in in_channels])
        strides = [*in_strides.values(), 2 * max(in_strides.values())]
        self.strides = {f"p{stride.bit_length() - 1}": stride for stride in strides}
        self.pooled_levels = tuple(self.strides)[:-1]

    def __call__(
        self, features: Mapping[str, Float[Array, "b _ _ _"]], masks: Mapping[str, Mask]
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """The pyramid, ``p2`` to ``p6`` from ``c2`` to ``c5``; ``masks`` belong to the backbone's maps."""
        compute = nnx.remat(FPN._outputs) if platform() == "cpu" else FPN._outputs
        outputs = compute(self, list(features.values()), list(masks.values()))
        # Where devices share an image, each has all of the last level: its rows might not divide evenly.
        last = all_rows(outputs[-1])[:, ::2, ::2]
        return dict(zip(self.strides, [*outputs, last], strict=True))

    def _outputs(self, features: list[Array], masks: list[Mask]) -> list[Float[Array, "b _ _ _"]]:
        """The levels that are computed from a backbone map.

        On a CPU, the backward pass recomputes the merged maps with 1x1 convolutions: saved, they would take
        as much memory as the outputs. On a GPU, recomputing them takes more memory than it saves.
        """
        laterals = [inner(c, mask) for inner, c, mask in zip(self.inner, features, masks, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            both = lateral + upsample_nearest(merged[-1])
            merged.append(both / 2 if self.fuse == "avg" else both)
        return [
            layer(mask_out(m, mask), mask)
            for layer, m, mask in zip(self.layer, reversed(merged), masks, strict=True)
        ]
