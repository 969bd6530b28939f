from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.models import fpn
from mrcnn_jax.models.fpn import FPN, upsample_nearest


def test_upsampling_repeats_cells():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    np.testing.assert_array_equal(
        upsample_nearest(x)[0, :, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_upsampling_is_the_same_on_every_platform(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), dtype)
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    for form in (fpn._repeat_by_broadcasting, fpn._repeat_by_matmul):
        np.testing.assert_array_equal(form(x), expected)


def test_upsampling_sums_its_gradient_in_float32():
    gradient = jnp.array([[1.0, 2**-8], [2**-8, 2**-8]], jnp.bfloat16)[None, :, :, None]
    _, backward = jax.vjp(upsample_nearest, jnp.zeros((1, 1, 1, 1), jnp.bfloat16))
    # 1 + 3/256 is rounded once, to even; in bfloat16, the first 1/256 would already be rounded away.
    assert backward(gradient)[0].item() == 1 + 2**-6


def _identity_fpn(fuse="sum"):
    """An FPN with one channel, lateral weights of 1 and identity output kernels."""
    levels = range(2, 6)
    channels, strides = {f"c{i}": 1 for i in levels}, {f"c{i}": 2**i for i in levels}
    fpn = FPN(channels, strides, 1, fuse=fuse, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for inner, layer in zip(fpn.inner, fpn.layer, strict=True):
        inner.conv.kernel[...] = jnp.ones((1, 1, 1, 1))
        layer.conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    return fpn


@partial(jax.jit, static_argnums=1)
def pyramid_of(features, fuse="sum"):
    return _identity_fpn(fuse)(features, dict.fromkeys(features))


@pytest.mark.parametrize(
    ("fuse", "expected"),
    [
        ("sum", {"p2": 1111, "p3": 1110, "p4": 1100, "p5": 1000, "p6": 1000}),
        ("avg", {"p2": 140.5, "p3": 280, "p4": 550, "p5": 1000, "p6": 1000}),
    ],
)
def test_levels_are_merged_top_down(fuse, expected):
    features = {f"c{i}": np.full((1, 64 >> i, 64 >> i, 1), 10.0 ** (i - 2), np.float32) for i in range(2, 6)}
    pyramid = jax.device_get(pyramid_of(features, fuse))
    assert {level: float(p.max()) for level, p in pyramid.items()} == expected
    assert {level: p.shape[1] for level, p in pyramid.items()} == {
        "p2": 16,
        "p3": 8,
        "p4": 4,
        "p5": 2,
        "p6": 1,
    }


def test_p6_is_every_second_cell_of_p5_and_rounds_up():
    features = {f"c{i}": np.zeros((1, 96 >> i, 96 >> i, 1), np.float32) for i in range(2, 5)}
    features["c5"] = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    pyramid = jax.device_get(pyramid_of(features))
    np.testing.assert_array_equal(pyramid["p6"][0, :, :, 0], [[0, 2], [6, 8]])
