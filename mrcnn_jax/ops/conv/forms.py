"""The convolution in the form that is fastest on the platform; results differ in rounding alone.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mrcnn_jax.ops.conv import cpu, plain
from mrcnn_jax.runtime.barriers import cpu_barrier
from mrcnn_jax.runtime.platforms import by_platform


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
    in_plain = functools.partial(plain.convolve, stride=stride, dilation=dilation, groups=groups)
    if not (x.dtype == kernel.dtype == jnp.float32 and dilation == groups == 1):
        return in_plain(x, kernel)
    on_cpu: Callable[[Array, Array], Array]
    if size == 1:
        on_cpu = functools.partial(cpu.pointwise, stride=stride)
    elif size == 3 and stride == 1:
        on_cpu = cpu.three_by_three
    elif size == 3 and stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        on_cpu = cpu.halving
    else:
        return in_plain(x, kernel)
    return by_platform({"cpu": on_cpu, "default": in_plain}, x, kernel)


@jax.custom_vjp
def add_bias(x: Float[Array, "b h w d"], bias: Float[Array, " d"]) -> Float[Array, "b h w d"]:
    """``x + bias``.

    The gradient of the bias is taken, on a CPU, before that of ``x`` goes on. XLA would leave it for later,
    and until then keep a map in memory for each bias.
    """
    return x + bias


def _add_bias_backward(_: None, gradient: Array) -> tuple[Array, Array]:
    return cpu_barrier((gradient, jnp.sum(gradient, axis=(0, 1, 2))))


add_bias.defvjp(lambda x, bias: (x + bias, None), _add_bias_backward)
