"""The convolution as XLA has it: the definition, and what accelerators run.

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
    """``x`` convolved as torch does it: padded by half the kernel's reach, the kernel not mirrored."""
    reach = kernel.shape[0] // 2 * dilation
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((reach, reach), (reach, reach)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
