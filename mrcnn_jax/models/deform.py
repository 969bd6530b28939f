"""The 3x3 convolution of a deformable bottleneck (arXiv 1703.06211)."""

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.distributed.weights import apply_weights
from mrcnn_jax.models.convs import Conv, he_normal
from mrcnn_jax.ops.conv import add_bias
from mrcnn_jax.ops.deform_conv import deform_conv

_OFFSETS, _TAPS = 18, 9


class DeformConv(Conv):
    """A 3x3 convolution without bias that reads where ``offset``, another one, says.

    If it is ``modulated`` (arXiv 1811.11168), ``offset`` also says how much each cell that is read counts.
    The latter begins at 0, with which this is an ordinary convolution, halved if it is modulated.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        modulated: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            3,
            stride=stride,
            dilation=dilation,
            groups=groups,
            use_bias=False,
            kernel_init=he_normal,
            dtype=dtype,
            rngs=rngs,
        )
        self.offset = Conv(
            in_channels,
            _OFFSETS + (_TAPS if modulated else 0),
            3,
            stride=stride,
            dilation=dilation,
            kernel_init=nnx.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        weights = self.kernel[...], None if self.bias is None else self.bias[...]
        return apply_weights(self._apply_deformed, weights, (x.astype(self.dtype), self.offset(x)))

    def _apply_deformed(
        self, weights: tuple[Array, Array | None], inputs: tuple[Array, Array]
    ) -> Float[Array, "b h2 w2 d"]:
        (kernel, bias), (x, found) = weights, inputs
        offsets, modulation = found[..., :_OFFSETS], None
        if found.shape[-1] > _OFFSETS:
            modulation = jax.nn.sigmoid(found[..., _OFFSETS:])
        x = deform_conv(x, offsets, kernel.astype(x.dtype), modulation, **self.options)
        return x if bias is None else add_bias(x, bias.astype(x.dtype))
