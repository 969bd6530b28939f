"""Chooses the fastest convolution for the platform; results differ only in rounding.

Shapes: B images, H x W cells of a map, C and D channels, K x K cells of a kernel.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mrcnn_jax.distributed.spatial import rows_are_split
from mrcnn_jax.ops.conv import cpu, depthwise, plain
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
    """A convolution as in torch, zero-padded by half the kernel's extent on every side."""
    size = kernel.shape[0]
    plain_form = functools.partial(plain.convolve, stride=stride, dilation=dilation, groups=groups)
    # The partitioner can split XLA's own convolution by rows, but would gather the maps for a CPU's forms.
    is_depthwise = groups == x.shape[-1] == kernel.shape[-1] and stride == 1
    if (
        rows_are_split()
        or not x.dtype == kernel.dtype == jnp.float32
        or dilation > 1
        or not (groups == 1 or is_depthwise)
    ):
        return plain_form(x, kernel)
    cpu_form: Callable[[Array, Array], Array]
    if groups > 1:
        cpu_form = depthwise.convolve
    elif size == 1:
        cpu_form = functools.partial(cpu.conv1x1, stride=stride)
    elif size == 3 and stride == 1:
        cpu_form = cpu.conv3x3
    elif size == 3 and stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        cpu_form = cpu.conv3x3_stride2
    else:
        return plain_form(x, kernel)
    return by_platform({"cpu": cpu_form, "default": plain_form}, x, kernel)


@jax.custom_vjp
def add_bias(x: Float[Array, "*rows d"], bias: Float[Array, " d"]) -> Float[Array, "*rows d"]:
    """``x + bias``.

    On a CPU, the bias's gradient is computed before the gradient of ``x`` is passed on. XLA would postpone
    it, and keep one map per bias in memory until then.
    """
    return x + bias


def _add_bias_backward(_: None, gradient: Array) -> tuple[Array, Array]:
    return cpu_barrier((gradient, jnp.sum(gradient, axis=tuple(range(gradient.ndim - 1)))))


add_bias.defvjp(lambda x, bias: (x + bias, None), _add_bias_backward)
