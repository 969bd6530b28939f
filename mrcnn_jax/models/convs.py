"""The stack of 3x3 convolutions with which the mask and keypoint heads begin."""

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

# Detectron2's c2_msra_fill
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvStack(nnx.Module):
    """``num_convs`` 3x3 convolutions with ReLU; the size stays."""

    def __init__(
        self, in_channels: int, channels: int, *, num_convs: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        inputs = [in_channels] + [channels] * (num_convs - 1)
        self.layers = nnx.List(
            nnx.Conv(c, channels, (3, 3), padding=1, kernel_init=he_normal, dtype=dtype, rngs=rngs)
            for c in inputs
        )

    def __call__(self, x: Float[Array, "n p p c"]) -> Float[Array, "n p p d"]:
        for conv in self.layers:
            x = nnx.relu(conv(x))
        return x
