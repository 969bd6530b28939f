"""XLA's own convolution: the definition, and the form that accelerators use.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

from jax import Array, lax
from jaxtyping import Float


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k _ d"],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """``x`` convolved as in torch: zero-padded by half the kernel's extent, without mirroring the kernel."""
    padding = kernel.shape[0] // 2 * dilation
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
