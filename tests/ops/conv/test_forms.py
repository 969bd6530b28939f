import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mrcnn_jax.ops.conv import add_bias, convolve, cpu, plain, winograd

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def arrays(batch, height, width, channels, outputs, size, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, height, width, channels))
    kernel = rng.standard_normal((size, size, channels, outputs))
    return x.astype(dtype), kernel.astype(dtype)


def with_gradients(function, x, kernel):
    @jax.jit
    def compute(x, kernel):
        result, pull_back = jax.vjp(function, x, kernel)
        cotangent = np.random.default_rng(1).standard_normal(result.shape).astype(np.float32)
        return result, *pull_back(jnp.asarray(cotangent))

    return compute(x, kernel)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2, 5, 6, 3, 4, 1), 1),
        ((1, 5, 3, 3, 4, 1), 1),  # the matmul has an odd number of rows
        ((2, 7, 6, 3, 4, 1), 2),
        ((2, 6, 7, 3, 4, 3), 1),
        ((2, 6, 8, 3, 4, 3), 2),
        ((1, 7, 8, 3, 4, 3), 2),
        ((1, 8, 9, 3, 4, 7), 2),
    ],
)
def test_values_and_gradients_equal_xlas(shape, stride):
    x, kernel = arrays(*shape)
    size = shape[-1]
    arguments = ((stride, stride), ((size // 2, size // 2),) * 2)
    found = with_gradients(lambda *a: convolve(*a, stride=stride), x, kernel)
    wanted = with_gradients(
        lambda *a: lax.conv_general_dilated(*a, *arguments, dimension_numbers=DIMENSIONS), x, kernel
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 9, 5, 6, 6, 7), (1, 2, 3, 4, 4, 3)])
def test_depthwise_values_and_gradients_equal_xlas(shape):
    x, kernel = arrays(*shape)
    kernel, groups = kernel[:, :, :1], shape[3]
    found = with_gradients(lambda *a: convolve(*a, groups=groups), x, kernel)
    wanted = with_gradients(lambda *a: plain.convolve(*a, groups=groups), x, kernel)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 10), (3, 15)])
def test_winograd_is_a_convolution(monkeypatch, size):
    monkeypatch.setattr(cpu, "_winograd_is_faster", lambda x, kernel: True)
    x, kernel = arrays(2, *size, 6, 5, 3)
    found = with_gradients(convolve, x, kernel)
    wanted = with_gradients(
        lambda *a: lax.conv_general_dilated(*a, (1, 1), "SAME", dimension_numbers=DIMENSIONS), x, kernel
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * float(np.std(other)) + 1e-6)


def test_winograd_rounds_to_a_millionth_of_the_standard_deviation():
    x, kernel = arrays(1, 16, 16, 256, 32, 3)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + 16, j : j + 16] @ np.asarray(kernel[i, j], np.float64)
        for i in range(3)
        for j in range(3)
    )
    error = np.asarray(winograd.convolve(x, kernel)) - exact
    assert np.sqrt(np.mean(error**2)) < 2e-6 * exact.std()
    assert np.abs(error).max() < 2e-5 * exact.std()


def test_winograd_is_for_large_maps_of_many_channels():
    def is_used(height, width, channels, batch=1):
        return cpu._winograd_is_faster((batch, height, width, channels), (3, 3, channels, channels))

    assert is_used(200, 336, 256) and is_used(100, 168, 128)
    assert not is_used(200, 336, 64)  # matmuls too narrow
    assert not is_used(25, 42, 512)  # fewer tiles than channels
    assert is_used(14, 14, 256, batch=100) and not is_used(14, 14, 256)  # tiles of all regions count together
    assert not is_used(5, 5, 256, batch=1000)
    assert not is_used(5, 1200, 256)  # tiles extend far beyond the map


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(jnp.bfloat16, {}), (np.float32, {"groups": 2}), (np.float32, {"dilation": 2})],
)
def test_other_convolutions_are_left_to_xla(dtype, options):
    x, kernel = arrays(1, 6, 6, 4, 4, 3, dtype)
    groups, dilation = options.get("groups", 1), options.get("dilation", 1)
    kernel = kernel[:, :, : 4 // groups]
    wanted = lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((dilation, dilation), (dilation, dilation)),
        rhs_dilation=(dilation, dilation),
        feature_group_count=groups,
        dimension_numbers=DIMENSIONS,
    )
    found = jax.jit(partial(convolve, **options))(x, kernel)
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(wanted, np.float32))


@pytest.mark.parametrize(("platform", "matmul"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_uses_a_matmul(platform, matmul):
    x, kernel = arrays(1, 4, 4, 3, 2, 1)
    program = jax.jit(convolve)
    text = program.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.dot_general" in text) == matmul
    assert ("stablehlo.convolution" in text) == (not matmul)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_bias_gradient_is_the_sum_over_all_cells(dtype):
    x, bias = jnp.ones((2, 3, 4, 2), dtype), jnp.array([1, -2], dtype)
    value, pull_back = jax.vjp(add_bias, x, bias)
    np.testing.assert_array_equal(np.asarray(value[1, 2, 3], np.float32), [2, -1])
    gradient = jnp.broadcast_to(jnp.array([1, 3], dtype), x.shape)
    grad_x, grad_bias = pull_back(gradient)
    assert grad_x.dtype == grad_bias.dtype == dtype
    np.testing.assert_array_equal(grad_x, gradient)
    np.testing.assert_array_equal(np.asarray(grad_bias, np.float32), [24, 72])


def test_convolutions_inside_a_conditional_have_xlas_fast_layout():
    """XLA calls Eigen for one layout only, and inside a conditional does not convert others to it."""
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

    def loss(x, kernel, *, condition):
        y = jax.lax.cond(condition, lambda x, kernel: convolve(x, kernel), lambda x, _: x, x, kernel)
        return jnp.sum(y**2)

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel, condition=True).compile().as_text()
    layouts = re.findall(r" convolution\(.*dim_labels=(\S+?),", program)
    assert len(layouts) >= 2
    assert set(layouts) == {"b01f_01io->b01f"}
