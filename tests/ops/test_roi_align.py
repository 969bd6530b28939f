import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mrcnn_jax.ops import levels
from mrcnn_jax.ops import roi_align as roi_align_module

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
OPTIONS = ("output_size", "sampling_ratio", "aligned", "canonical_size")
assign_levels = jax.jit(
    levels.assign_levels, static_argnames=("min_level", "max_level", "canonical_size", "rule")
)
roi_align = jax.jit(
    roi_align_module.roi_align, static_argnames=("stride", "output_size", "sampling_ratio", "aligned")
)
multilevel_roi_align = jax.jit(roi_align_module.multilevel_roi_align, static_argnames=OPTIONS)

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def ramp(height, width):
    """A map whose two channels hold the x and the y of each cell."""
    y, x = jnp.mgrid[:height, :width]
    return jnp.stack([x, y], axis=-1).astype(jnp.float32)


def test_by_hand():
    # Two by two bins of 2 x 2 pixels, one point each. Aligned: the point at pixel 1 is between cells 0 and 1.
    box = jnp.array([[0.0, 0, 4, 4]])
    options = {"stride": 1.0, "output_size": 2, "sampling_ratio": 1}
    aligned = roi_align(ramp(6, 6), box, aligned=True, **options)[0]
    np.testing.assert_allclose(aligned[..., 0], [[0.5, 2.5], [0.5, 2.5]])
    np.testing.assert_allclose(aligned[..., 1], [[0.5, 0.5], [2.5, 2.5]])
    shifted = roi_align(ramp(6, 6), box, aligned=False, **options)[0]
    np.testing.assert_allclose(shifted[..., 0], [[1, 3], [1, 3]])


def test_points_outside_by_hand():
    # Aligned points of a 1 x 4 strip at x = -1.5 (outside), -0.5 (moved to the edge), 1.5, and 4.5 (outside).
    strip = jnp.array([[[10.0], [20], [30], [40]]])
    boxes = jnp.array([[x - 0.5, 0, x + 0.5, 1] for x in (-1.0, 0.0, 2.0, 5.0)])
    pooled = roi_align(strip, boxes, stride=1.0, output_size=1, sampling_ratio=1, aligned=True)
    np.testing.assert_allclose(pooled[:, 0, 0, 0], [0, 10, 25, 0])


def test_levels_by_hand():
    side = jnp.array([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = jnp.stack([side * 0, side * 0, side * 2, side / 2], axis=1)
    level = assign_levels(boxes, min_level=2, max_level=5)
    np.testing.assert_array_equal(level, [2, 2, 3, 3, 4, 4, 5, 5])
    np.testing.assert_array_equal(assign_levels(boxes[:1] * 0, min_level=2, max_level=5), [2])


def test_levels_by_either_rule():
    # Half a millionth under 224: 4 + log2 is under 4 by 7e-7, which torchvision's 1e-6 makes good.
    boxes = jnp.array([[0.0, 0, 223.9999, 223.9999], [0, 0, 223.9, 223.9], [0, 0, 224, 224]])
    found = {
        rule: assign_levels(boxes, min_level=2, max_level=5, rule=rule).tolist()
        for rule in ("detectron2", "torchvision")
    }
    assert found == {"detectron2": [3, 3, 4], "torchvision": [4, 3, 4]}
    with pytest.raises(ValueError, match="level rule is 'keras'; it must be 'detectron2' or 'torchvision'"):
        assign_levels(boxes, min_level=2, max_level=5, rule="keras")


def test_adaptive_ratio_counts_whole_cells():
    # Bins of exactly k cells have k points per axis. Division by 7 in float32 would sometimes make it k + 1.
    features = jnp.asarray(np.random.default_rng(0).normal(size=(50, 50, 1)), jnp.float32)
    for cells in (3, 6):
        box = jnp.array([[0.0, 0, 7 * cells, 7 * cells]])
        adaptive, fixed = (
            roi_align(features, box, stride=1.0, output_size=7, sampling_ratio=ratio, aligned=True)
            for ratio in (0, cells)
        )
        np.testing.assert_allclose(adaptive, fixed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 7), (0, 7), (2, 2), (0, 3)])
@pytest.mark.parametrize("aligned", [False, True])
def test_equals_torchvision(aligned, size):
    ratio, output_size = size
    case = f"roi_align/aligned{int(aligned)}_ratio{ratio}_size{output_size}"
    features, boxes = jnp.asarray(REFERENCE["roi_align/features"]), jnp.asarray(REFERENCE["roi_align/boxes"])

    @jax.jit
    def pool_and_gradient(features, boxes, cotangent):
        pooled, transpose = jax.vjp(
            lambda f: roi_align(
                f, boxes, stride=4.0, output_size=output_size, sampling_ratio=ratio, aligned=aligned
            ),
            features,
        )
        return pooled, transpose(cotangent)[0]

    pooled, gradient = pool_and_gradient(features, boxes, jnp.asarray(REFERENCE[f"{case}/cotangent"]))
    np.testing.assert_allclose(pooled, REFERENCE[f"{case}/pooled"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, REFERENCE[f"{case}/gradient"], rtol=1e-5, atol=1e-5)


def test_pyramid_equals_torchvision():
    features = {f"p{k}": jnp.asarray(REFERENCE[f"pyramid/p{k}"]) for k in (2, 3, 4, 5)}
    boxes = jnp.asarray(REFERENCE["pyramid/boxes"])
    level = assign_levels(boxes, min_level=2, max_level=5, canonical_size=28.0)
    np.testing.assert_array_equal(level, REFERENCE["pyramid/level"])
    pooled = multilevel_roi_align(
        features, boxes, output_size=5, sampling_ratio=2, aligned=False, canonical_size=28.0
    )
    np.testing.assert_allclose(pooled, REFERENCE["pyramid/pooled"], rtol=1e-5, atol=1e-5)


def dense_roi_align(features, box, size, ratio):
    """Aligned RoIAlign of one box inside the map as two interpolation matrices, for JAX to differentiate."""

    def matrix(low, high, cells):
        points = low - 0.5 + (jnp.arange(size * ratio) + 0.5) * (high - low) / (size * ratio)
        tent = jnp.maximum(1 - jnp.abs(jnp.clip(points, 0, cells - 1)[:, None] - jnp.arange(cells)), 0)
        return tent.reshape(size, ratio, cells).mean(axis=1)

    rows, columns = matrix(box[1], box[3], features.shape[0]), matrix(box[0], box[2], features.shape[1])
    return jnp.einsum("yi,ijc,xj->yxc", rows, features, columns)


def test_gradient_equals_that_of_a_dense_form():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(6, 5, 2)), jnp.float32)
    boxes = jnp.array([[0.3, 0.2, 4.1, 5.7], [1, 1, 2, 2], [0, 0, 5, 6]])
    target = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=1)
    def loss_gradient(features, pool):
        return jax.grad(lambda f: jnp.sum((pool(f) - target) ** 2))(features)

    def ours(f):
        return roi_align(f, boxes, stride=1.0, output_size=3, sampling_ratio=2, aligned=True)

    def dense(f):
        return jax.vmap(lambda b: dense_roi_align(f, b, 3, 2))(boxes)

    np.testing.assert_allclose(ours(features), jax.jit(dense)(features), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        loss_gradient(features, ours), loss_gradient(features, dense), rtol=1e-5, atol=1e-5
    )


def test_boxes_get_no_gradient():
    box = jnp.array([[1.0, 1, 4, 4]])
    gradient = jax.grad(
        lambda b: roi_align(ramp(6, 6), b, stride=1.0, output_size=2, sampling_ratio=2, aligned=True).sum()
    )(box)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


@pytest.mark.parametrize("ratio", [0, 2])
def test_garbage_in_padding_and_degenerate_boxes(ratio):
    features = ramp(6, 6)
    real = [[1.0, 1, 4, 4], [2, 2, 2, 2], [4, 4, 1, 1]]
    garbage = [[np.nan] * 4, [np.inf] * 4, [-1e30, -1e30, 1e30, 1e30]]

    @jax.jit
    def pool_and_gradient(features, boxes):

        def pool(f):
            return roi_align(f, boxes, stride=1.0, output_size=2, sampling_ratio=ratio, aligned=True)

        pooled, transpose = jax.vjp(pool, features)
        return pooled[:3], transpose(jnp.ones_like(pooled).at[3:].set(0))[0]

    clean = pool_and_gradient(features, jnp.array(real + [[0.0, 0, 0, 0]] * 3))
    for ours, expected in zip(pool_and_gradient(features, jnp.array(real + garbage)), clean, strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_bfloat16_features_are_summed_in_float32():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(8, 8, 4)), jnp.bfloat16)
    boxes = jnp.asarray([[0.3, 0.2, 7.1, 6.7]] * 200)

    @jax.jit
    def pool_and_gradient(features):

        def pool(f):
            return roi_align(f, boxes, stride=1.0, output_size=7, sampling_ratio=2, aligned=True)

        pooled, transpose = jax.vjp(pool, features)
        return pooled, transpose(jnp.ones_like(pooled))[0]

    half, half_gradient = pool_and_gradient(features)
    full, full_gradient = pool_and_gradient(features.astype(jnp.float32))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, full.astype(jnp.bfloat16))
    assert half_gradient.dtype == jnp.bfloat16
    # 200 equal boxes: sums in bfloat16 would stop growing at 256 times a share.
    np.testing.assert_array_equal(half_gradient, full_gradient.astype(jnp.bfloat16))


@pytest.mark.parametrize("ratio", [0, 2])
def test_batch_equals_its_images_and_stays_on_its_devices(ratio):
    rng = np.random.default_rng(0)
    shapes = {"p2": (8, 8), "p3": (4, 4)}
    features = {k: jnp.asarray(rng.normal(size=(8, *s, 2)), jnp.float32) for k, s in shapes.items()}
    corner = rng.uniform(0, 24, (8, 5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (8, 5, 2))], axis=-1)
    boxes = jnp.asarray(boxes, jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(8, 5, 3, 3, 2)), jnp.float32)

    def one(features, boxes, cotangent):
        pooled, transpose = jax.vjp(
            lambda f: multilevel_roi_align(
                f, boxes, output_size=3, sampling_ratio=ratio, aligned=True, canonical_size=48.0
            ),
            features,
        )
        return pooled, transpose(cotangent)[0]

    mesh = jax.make_mesh((8, 1), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)
    batch = jax.device_put((features, boxes, cotangent), NamedSharding(mesh, P("data")))
    local = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    plain = jax.jit(jax.vmap(one)).lower(*batch).compile()
    inside = jax.jit(local).lower(*batch).compile()
    assert not any(name in inside.as_text() for name in COLLECTIVES)
    # The adaptive ratio needs one loop bound for the batch: a maximum over the devices, of one number.
    allowed = ("all-reduce",) if ratio == 0 else ()
    assert not any(name in plain.as_text() for name in COLLECTIVES if name not in allowed)

    single = jax.jit(one)
    images = [single(*jax.tree.map(lambda a, i=i: a[i], (features, boxes, cotangent))) for i in range(8)]
    expected = jax.tree.map(lambda *a: np.stack(a), *images)

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    for compiled in (plain, inside):
        jax.tree.map(close, compiled(*batch), expected)


@pytest.mark.parametrize("names", [("p2", "p4"), ("c4",), ()])
def test_wrong_levels_are_named(names):
    features = {name: jnp.zeros((4, 4, 1)) for name in names}
    with pytest.raises(ValueError, match=r"must be named p2, p3, .* without gaps"):
        multilevel_roi_align(features, jnp.zeros((1, 4)), output_size=2, sampling_ratio=2, aligned=True)
