import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import roi_pool as roi_pool_module
from mrcnn_jax.ops.roi_pool import multilevel_roi_pool

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
roi_pool = jax.jit(roi_pool_module.roi_pool, static_argnames=("stride", "output_size"))


@functools.partial(jax.jit, static_argnames=("stride", "output_size"))
def pool_and_gradient(features, boxes, cotangent, **settings):
    pooled, transpose = jax.vjp(lambda f: roi_pool(f, boxes, **settings), features)
    return pooled, transpose(cotangent)[0]


def test_by_hand():
    # Corners at x = 0.5 and 2.5 round to cells 1 and 3, so the box has 3 columns and 2 rows. Bins of 1.5
    # columns cover columns 1 to 2 and 2 to 3, and share the middle one.
    features = jnp.array([[9.0, 1, 2, 3, 9], [9, 6, 5, 4, 9], [9, 9, 9, 9, 9]])[..., None]
    box = np.array([[0.5, 0.2, 2.5, 1.4]], np.float32)
    pooled, gradient = pool_and_gradient(features, box, np.ones((1, 2, 2, 1)), stride=1.0, output_size=2)
    np.testing.assert_array_equal(pooled[0, ..., 0], [[2, 3], [6, 5]])
    np.testing.assert_array_equal(gradient[..., 0], [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0] * 5])


def test_the_first_of_equal_cells_gets_the_gradient():
    # 20 x 20 cells in one bin, covered by squares of 4: columns 16 to 19 of row 9 come after later rows.
    features = np.zeros((20, 20, 2), np.float32)
    features[9, 18, 0] = features[10, 1, 0] = features[12, 12, 0] = 1
    box = np.array([[0.0, 0, 19, 19]], np.float32)
    _, gradient = pool_and_gradient(features, box, np.ones((1, 3, 3, 2)), stride=1.0, output_size=3)
    found = np.argwhere(np.asarray(gradient) > 0).tolist()
    bins = [[y, x, 1] for y in (0, 6, 13) for x in (0, 6, 13)]
    assert [9, 18, 0] in found
    assert [10, 1, 0] in found
    assert [12, 12, 0] in found
    assert [cell for cell in found if cell[2] == 1] == bins


@pytest.mark.parametrize("size", [2, 7])
def test_equals_torchvision(size):
    case = f"roi_pool/size{size}"
    pooled, gradient = pool_and_gradient(
        np.asarray(REFERENCE["roi_pool/features"]),
        np.asarray(REFERENCE["roi_pool/boxes"]),
        np.asarray(REFERENCE[f"{case}/cotangent"]),
        stride=4.0,
        output_size=size,
    )
    np.testing.assert_array_equal(pooled, REFERENCE[f"{case}/pooled"])
    np.testing.assert_allclose(gradient, REFERENCE[f"{case}/gradient"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [7, 14])
def test_bin_edges_equal_torchvision(size):
    # The largest cell of a ramp is the last one, of its negative the first.
    ramp = np.arange(400, dtype=np.float32)
    length = np.arange(1, 401, dtype=np.float32)
    boxes = np.stack([0 * length, 0 * length, length - 1, 0 * length], axis=1)
    pooled = roi_pool(np.stack([-ramp, ramp], axis=-1)[None], boxes, stride=1.0, output_size=size)
    np.testing.assert_array_equal(-pooled[:, 0, :, 0], REFERENCE[f"roi_pool_edges/first{size}"])
    np.testing.assert_array_equal(pooled[:, 0, :, 1], REFERENCE[f"roi_pool_edges/last{size}"])
    # Exact quotients would give other ends.
    exact = (np.arange(1, 401)[:, None] * np.arange(1, size + 1) + size - 1) // size - 1
    assert (exact != REFERENCE[f"roi_pool_edges/last{size}"]).any()


def test_each_region_is_pooled_on_its_level():
    rng = np.random.default_rng(0)
    features = {f"p{k}": jnp.asarray(rng.normal(size=(64 >> k, 96 >> k, 2)), jnp.float32) for k in (2, 3)}
    boxes = jnp.array([[3.0, 4, 20, 18], [0, 10, 70, 62]])  # levels 2 and 3
    cotangent = jnp.asarray(rng.normal(size=(2, 3, 3, 2)), jnp.float32)

    @jax.jit
    def together(features):
        def pool(f):
            return multilevel_roi_pool(f, boxes, output_size=3, canonical_size=96.0)

        pooled, transpose = jax.vjp(pool, features)
        return pooled, transpose(cotangent)[0]

    pooled, gradient = jax.device_get(together(features))
    for i, (name, stride) in enumerate({"p2": 4.0, "p3": 8.0}.items()):
        alone = pool_and_gradient(
            features[name], boxes[i : i + 1], cotangent[i : i + 1], stride=stride, output_size=3
        )
        np.testing.assert_array_equal(pooled[i], alone[0][0])
        np.testing.assert_array_equal(gradient[name], alone[1])


def test_features_beyond_the_image_have_no_effect():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(9, 11, 2)), jnp.float32)
    canvas = np.full((16, 24, 2), 1e9, np.float32)
    canvas[:9, :11] = image
    boxes = np.array([[1.0, 1, 60, 50], [5, 5, 12, 12], [36, 20, 44, 36], [70, 50, 90, 60]], np.float32)
    expected = roi_pool(image, boxes, stride=4.0, output_size=3)
    found = roi_pool(canvas, boxes, stride=4.0, output_size=3, map_size=jnp.array([9, 11]))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[3], np.zeros((3, 3, 2)))


def test_garbage_in_padding_has_no_effect():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6, 2)), jnp.float32)
    real = [[1.0, 1, 4, 4], [2, 2, 2, 2], [4, 4, 1, 1]]
    garbage = [[np.nan] * 4, [np.inf] * 4, [-1e30, -1e30, 1e30, 1e30]]
    cotangent = np.ones((6, 2, 2, 2), np.float32)
    cotangent[3:] = 0
    clean, clean_gradient = pool_and_gradient(
        features, np.array(real + [[0.0] * 4] * 3), cotangent, stride=1.0, output_size=2
    )
    pooled, gradient = pool_and_gradient(
        features, np.array(real + garbage), cotangent, stride=1.0, output_size=2
    )
    np.testing.assert_array_equal(pooled[:3], clean[:3])
    np.testing.assert_array_equal(gradient, clean_gradient)


def test_batch_equals_its_images():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(3, 20, 30, 2)), jnp.bfloat16)
    corner = rng.uniform(0, 60, (3, 5, 2))
    boxes = jnp.asarray(
        np.concatenate([corner, corner + rng.uniform(2, 60, (3, 5, 2))], axis=-1), jnp.float32
    )
    cotangent = jnp.asarray(rng.normal(size=(3, 5, 3, 3, 2)), jnp.bfloat16)

    def one(features, boxes, cotangent):
        return pool_and_gradient(features, boxes, cotangent, stride=4.0, output_size=3)

    together = jax.jit(jax.vmap(one))(features, boxes, cotangent)
    for i in range(3):
        for a, b in zip(together, one(features[i], boxes[i], cotangent[i]), strict=True):
            assert a.dtype == jnp.bfloat16
            np.testing.assert_array_equal(a[i], b)


def test_no_boxes_and_no_gradient_to_boxes():
    features = jnp.ones((6, 6, 2))
    assert roi_pool(features, jnp.zeros((0, 4)), stride=1.0, output_size=2).shape == (0, 2, 2, 2)
    gradient = jax.jit(jax.grad(lambda b: roi_pool(features, b, stride=1.0, output_size=2).sum()))(
        jnp.ones((1, 4))
    )
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_wrong_levels_are_errors():
    with pytest.raises(ValueError, match=r"\['p2', 'p4'\] must be named p2, p3, .* without gaps"):
        multilevel_roi_pool(
            {"p2": jnp.zeros((4, 4, 1)), "p4": jnp.zeros((1, 1, 1))}, jnp.zeros((1, 4)), output_size=2
        )
