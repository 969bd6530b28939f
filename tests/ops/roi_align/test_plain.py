import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.roi_align import plain

REFERENCE = np.load(pathlib.Path(__file__).parents[2] / "fixtures" / "torchvision_ops.npz")


def test_bilinear_by_hand():
    grid = jnp.array([[[0.0], [10]], [[20], [30]]])
    y, x, size = jnp.array([-1.1, -1, 0, 0.5, 2]), jnp.array([0.25, 1.5]), jnp.array([2, 2])
    sampled = plain.bilinear(grid, y, x, size)[..., 0]
    np.testing.assert_allclose(sampled, [[0, 0], [2.5, 10], [2.5, 10], [12.5, 20], [22.5, 30]])


@pytest.mark.parametrize("size", [(2, 7), (0, 3)])
@pytest.mark.parametrize("aligned", [False, True])
def test_equals_torchvision(aligned, size):
    ratio, output_size = size
    case = f"roi_align/aligned{int(aligned)}_ratio{ratio}_size{output_size}"
    features, boxes = jnp.asarray(REFERENCE["roi_align/features"]), jnp.asarray(REFERENCE["roi_align/boxes"])
    settings = {"stride": 4.0, "output_size": output_size, "sampling_ratio": ratio, "aligned": aligned}

    @jax.jit
    def pool_and_gradient(features, cotangent):
        pooled, transpose = jax.vjp(lambda f: plain.roi_align(f, boxes, **settings), features)
        return pooled, transpose(cotangent)[0]

    pooled, gradient = pool_and_gradient(features, jnp.asarray(REFERENCE[f"{case}/cotangent"]))
    np.testing.assert_allclose(pooled, REFERENCE[f"{case}/pooled"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, REFERENCE[f"{case}/gradient"], rtol=1e-5, atol=1e-5)
