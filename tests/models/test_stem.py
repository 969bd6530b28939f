"""ResNet's stem as a TPU computes it, compared with its plain form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.models import stem
from mrcnn_jax.models.canvas import image_mask
from mrcnn_jax.models.folding import Folded
from mrcnn_jax.models.resnet import plain_conv


def _conv(channels):
    conv = plain_conv(channels, 8, 7, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    conv.bias = nnx.Param(jnp.linspace(-1.0, 1.0, 8))  # after folding; beyond an image it must not appear
    return conv


def _images(sizes, canvas, channels):
    noise = np.random.default_rng(0).normal(size=(len(sizes), *canvas, channels)).astype(np.float32)
    return jnp.where(image_mask(canvas, jnp.asarray(sizes)), noise, 0)


@pytest.mark.parametrize(
    "sizes, canvas, count, channels",
    [
        ([[32, 64]], (32, 64), 8, 3),
        ([[32, 64], [17, 37], [8, 3]], (32, 64), 4, 3),
        ([[20, 50]], (32, 96), 3, 5),
    ],
)
def test_strips_give_the_same_map(sizes, canvas, count, channels):
    images, sizes, conv = _images(sizes, canvas, channels), jnp.asarray(sizes), _conv(channels)
    plain = stem.apply_stem(conv, Folded(), images, sizes)
    assert plain.shape == (len(sizes), canvas[0] // 4, canvas[1] // 4, 8)
    np.testing.assert_allclose(stem.in_strips(conv, images, sizes, count), plain, atol=1e-5)


def test_strips_of_whole_images_give_the_same_map_and_gradient():
    conv, images = _conv(3), _images([[32, 64]] * 2, (32, 64), 3)
    graphdef, weights = nnx.split(conv)

    def gradient(form):
        def loss(weights):
            x = form(nnx.merge(graphdef, weights))
            return jnp.sum(x * jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape))

        return jax.value_and_grad(loss)(weights)

    plain = gradient(lambda conv: stem.apply_stem(conv, Folded(), images, None))
    strips = gradient(lambda conv: stem.in_strips(conv, images, None, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), plain, strips)


@pytest.mark.parametrize(
    "shape, count",
    [((1, 800, 1344, 3), 112), ((8, 800, 1344, 3), 16), ((1, 30, 64, 3), 1), ((128, 32, 32, 3), 1)],
)
def test_strips_of_all_images_fill_a_register(shape, count):
    assert stem._strip_count(shape) == count
