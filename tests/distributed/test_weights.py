import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding

from mrcnn_jax.distributed.sharding import BY_IMAGE, replicated
from mrcnn_jax.models.convs import Conv, apply_linear
from mrcnn_jax.models.deconv import Deconv2x2, Deconv4x4, interleave

LAYERS = {
    "convolution": lambda **kwargs: Conv(1, 1, 1, kernel_init=nnx.initializers.ones, **kwargs),
    "linear": lambda **kwargs: nnx.Linear(1, 1, kernel_init=nnx.initializers.ones, **kwargs),
    "deconvolution 2x2": lambda **kwargs: Deconv2x2(1, 1, **kwargs),
    "deconvolution 4x4": lambda **kwargs: Deconv4x4(1, 1, **kwargs),
}


def gradients(layer, shape):
    """The gradients of a bfloat16 layer's kernel and bias on a mesh, from eight rows of ones.

    The first row's outputs weigh 1 in the loss, and each of the others 1/512.
    """
    mesh = jax.make_mesh(shape, ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)
    graphdef, params = nnx.split(LAYERS[layer](dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    x = np.ones((8, 1) if layer == "linear" else (8, 1, 1, 1), np.float32)
    weights = np.array([1, *[2**-9] * 7], np.float32).reshape(x.shape)

    def loss(params, x, weights):
        model = nnx.merge(graphdef, params)
        outputs = apply_linear(model, x) if layer == "linear" else model(x)
        return jnp.sum((interleave(outputs) if layer == "deconvolution 2x2" else outputs) * weights)

    by_image = NamedSharding(mesh, BY_IMAGE)
    places = replicated(mesh), by_image, by_image
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(loss), in_shardings=places)(params, x, weights)
    return np.max(gradient["kernel"][...]), gradient["bias"][...].item()


@pytest.mark.parametrize("layer", LAYERS)
def test_devices_sum_the_gradients_of_bfloat16_layers_in_float32(layer):
    cells = 4 if layer.startswith("deconvolution") else 1
    # Between 1 + 1/128 and 1 + 2/128, which are neighbours in bfloat16.
    expected = 1 + 7 / 512
    assert gradients(layer, (8, 1)) == (expected, cells * expected)


def test_a_device_rounds_the_sum_over_its_own_images():
    kernel, bias = gradients("convolution", (4, 2))
    # Of two rows each; the first device's 1 + 1/512 is rounded to 1.
    assert (kernel, bias) == (1 + 6 / 512, 1 + 6 / 512)
