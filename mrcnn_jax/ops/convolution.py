"""The convolutions of the networks, by what is fastest on the platform.

On accelerators that is XLA's. On a CPU, in float32, XLA's gradient of a kernel transposes the map first, its
gradient of a strided convolution multiplies by zeros, and Winograd's algorithm, for large maps and many
regions, has a quarter of the multiplications. Results differ in rounding alone: see
``winograd.py`` for how much.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from mrcnn_jax.ops import winograd
from mrcnn_jax.ops.platforms import by_platform, keep_apart
from mrcnn_jax.ops.products import contract_rows, multiply

_FEWEST_CHANNELS = 128  # for Winograd's algorithm to pay
_LARGEST_WASTE = 1.35  # computed outputs, in whole tiles, to those of the map; 1.31 for 14 x 14


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k _ d"],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """A convolution as torch's, padded by half the reach of the kernel on every side."""
    size = kernel.shape[0]
    by_xla = functools.partial(_by_xla, stride=stride, dilation=dilation, groups=groups)
    if not (x.dtype == kernel.dtype == jnp.float32 and dilation == groups == 1):
        return by_xla(x, kernel)
    on_cpu: Callable[[Array, Array], Array]
    if size == 1:
        on_cpu = functools.partial(_pointwise, stride=stride)
    elif size == 3 and stride == 1:
        on_cpu = _three_by_three
    elif size == 3 and stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        on_cpu = _halving
    else:
        return by_xla(x, kernel)
    return by_platform({"cpu": on_cpu, "default": by_xla}, x, kernel)


@jax.custom_vjp
def add_bias(x: Float[Array, "b h w d"], bias: Float[Array, " d"]) -> Float[Array, "b h w d"]:
    """``x + bias``.

    The gradient of the bias is taken, on a CPU, before that of ``x`` goes on. XLA would leave it for later,
    and until then keep a map in memory for each bias.
    """
    return x + bias


def _add_bias_backward(_: None, gradient: Array) -> tuple[Array, Array]:
    return keep_apart((gradient, jnp.sum(gradient, axis=(0, 1, 2))))


add_bias.defvjp(lambda x, bias: (x + bias, None), _add_bias_backward)


def _by_xla(x: Array, kernel: Array, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Array:
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


def _pointwise(x: Array, kernel: Array, *, stride: int) -> Array:
    """A 1x1 convolution as a product of matrices."""
    x = x[:, ::stride, ::stride]
    rows = multiply(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return rows.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def _three_by_three(x: Array, kernel: Array) -> Array:
    return winograd.convolve(x, kernel) if _pays(x.shape, kernel.shape) else _by_xla(x, kernel)


def _three_by_three_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    mirrored = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    if _pays(x.shape, kernel.shape):
        of_x = winograd.convolve(gradient, mirrored)
        of_kernel = winograd.kernel_gradient(lax.optimization_barrier(x), gradient)
    else:
        of_x = _by_xla(gradient, mirrored)
        of_kernel = _kernel_gradient(x, gradient)
    return lax.optimization_barrier((of_x, of_kernel))


_three_by_three.defvjp(lambda x, kernel: (_three_by_three(x, kernel), (x, kernel)), _three_by_three_backward)


def _kernel_gradient(x: Array, gradient: Array) -> Array:
    """The convolution of ``x`` by its gradient, cells for channels, in the layout that XLA has Eigen do.

    Differentiated by JAX it has another, which XLA changes, but not within a loop or under a condition. There
    it would take thirty times longer.
    """
    by_gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return by_gradient.transpose(1, 2, 0, 3)


def _pays(x: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether Winograd's algorithm is faster for these shapes: with few rows, its products are all kernel."""
    batch, height, width, _ = x
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    channels = kernel[2:]
    return (
        min(channels) >= _FEWEST_CHANNELS
        and batch * tiles >= max(channels)
        and tiles * winograd.TILE**2 <= _LARGEST_WASTE * height * width
    )


@jax.custom_vjp
def _halving(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of stride 2, of a map with even sides."""
    return _by_xla(x, kernel, stride=2)


def _halving_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    batch, height, width, channels = x.shape
    # An even row of the input is seen by the middle row of the kernel alone; an odd one by the last row, for
    # the output before it, and by the first, for the one behind it. So are columns.
    mirrored = jnp.swapaxes(kernel, 2, 3)
    seen = ((slice(1, 2), (0, 0)), (slice(None, None, -2), (0, 1)))
    by_parity = [
        [
            lax.conv_general_dilated(
                gradient,
                mirrored[rows, columns],
                (1, 1),
                (below, right),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for columns, right in seen
        ]
        for rows, below in seen
    ]
    of_x = jnp.stack([jnp.stack(row, axis=3) for row in by_parity], axis=2)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows_of_gradient = gradient.reshape(-1, gradient.shape[-1])
    of_kernel = [
        [
            contract_rows(
                padded[:, i : i + height : 2, j : j + width : 2].reshape(-1, channels), rows_of_gradient
            )
            for j in range(3)
        ]
        for i in range(3)
    ]
    return of_x.reshape(batch, height, width, channels), jnp.stack([jnp.stack(row) for row in of_kernel])


_halving.defvjp(lambda x, kernel: (_halving(x, kernel), (x, kernel)), _halving_backward)
