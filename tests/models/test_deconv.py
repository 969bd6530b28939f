import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.models.deconv import Deconv2x2, Deconv4x4, interleave


def test_one_cell_becomes_the_kernel():
    layer = Deconv2x2(1, 1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    out = interleave(layer(jnp.full((1, 1, 1, 1), 10.0)))
    np.testing.assert_array_equal(out[0, :, :, 0], [[10, 20], [30, 40]])


@pytest.mark.parametrize(("size", "kind"), [(2, Deconv2x2), (4, Deconv4x4)])
def test_matches_torch(size, kind, torchvision_backbone):
    script, expected = torchvision_backbone
    layer = kind(3, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(script.seeded(f"deconv{size}", (3, 4, size, size)).transpose(2, 3, 0, 1))
    layer.bias[...] = jnp.asarray(script.seeded("bias", (4,)))
    out = layer(jnp.asarray(script.seeded("cells", (2, 3, 5, 5)).transpose(0, 2, 3, 1)))
    out = interleave(out) if kind is Deconv2x2 else out
    np.testing.assert_allclose(out, expected[f"deconv{size}"], atol=1e-6)


@pytest.mark.parametrize(("size", "kind"), [(2, Deconv2x2), (4, Deconv4x4)])
def test_initial_standard_deviation_matches_torch(size, kind):
    """kaiming_normal_(mode="fan_out") of a deconvolution: sqrt(2 / (inputs * kernel area))."""
    kernel = kind(64, 9, dtype=jnp.float32, rngs=nnx.Rngs(0)).kernel[...]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (64 * size**2)), rel=0.1)
