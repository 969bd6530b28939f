import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mrcnn_jax.ops.roi_align import forms, plain, windows

REFERENCE = np.load(pathlib.Path(__file__).parents[2] / "fixtures" / "torchvision_ops.npz")
OPTIONS = ("output_size", "sampling_ratio", "aligned", "reduction", "form")
FORMS = ("cached", "gather", "windows", "einsum")
METHODS = [("mean", 1), ("mean", 3), ("mean", 0), ("max", 2), ("max", 0)]  # reduction and sampling ratio
QUICK = [("mean", 0), ("max", 2)]  # the others are slow tests
roi_align = jax.jit(forms.roi_align, static_argnames=("stride", *OPTIONS))
multilevel_roi_align = jax.jit(forms.multilevel_roi_align, static_argnames=("canonical_size", *OPTIONS))

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def forms_of(reduction, ratio):
    """The forms that support this reduction and sampling ratio."""
    without = set() if reduction == "mean" else {"windows"} if ratio else {"windows", "einsum"}
    return [form for form in FORMS if form not in without]


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


@pytest.mark.parametrize("form", forms_of("max", 2))
def test_maximum_by_hand(form):
    # Points on cells 0 and 1, 2 and 3, along both axes. A bin's largest x is in both of its rows, its largest
    # y in both columns, and the third channel is constant: the first of the equal points gets the gradient.
    features = jnp.concatenate([ramp(5, 5), jnp.ones((5, 5, 1))], axis=-1)
    settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": 2, "aligned": True}

    @jax.jit
    def pool_and_gradient(features):
        boxes = jnp.array([[0.0, 0, 4, 4]])
        pooled, transpose = jax.vjp(
            lambda f: forms.roi_align(f, boxes, reduction="max", form=form, **settings), features
        )
        return pooled[0], transpose(jnp.ones_like(pooled))[0]

    pooled, gradient = pool_and_gradient(features)
    np.testing.assert_array_equal(pooled[..., 0], [[1, 3], [1, 3]])
    np.testing.assert_array_equal(pooled[..., 1], [[1, 1], [3, 3]])
    first = [
        [[0, 1], [0, 3], [2, 1], [2, 3]],
        [[1, 0], [1, 2], [3, 0], [3, 2]],
        [[0, 0], [0, 2], [2, 0], [2, 2]],
    ]
    for channel, cells in enumerate(first):
        np.testing.assert_array_equal(np.argwhere(gradient[..., channel]), cells)


def test_adaptive_ratio_counts_whole_cells():
    # Bins of exactly k cells have k points per axis. Division by 7 in float32 would sometimes give k + 1.
    features = jnp.asarray(np.random.default_rng(0).normal(size=(50, 50, 1)), jnp.float32)
    for cells in (3, 6):
        box = jnp.array([[0.0, 0, 7 * cells, 7 * cells]])
        adaptive, fixed = (
            roi_align(features, box, stride=1.0, output_size=7, sampling_ratio=ratio, aligned=True)
            for ratio in (0, cells)
        )
        np.testing.assert_allclose(adaptive, fixed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "size", [(2, 7), (0, 3), *(pytest.param(x, marks=pytest.mark.slow) for x in [(0, 7), (2, 2)])]
)
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
    pooled = multilevel_roi_align(
        features, boxes, output_size=5, sampling_ratio=2, aligned=False, canonical_size=28.0
    )
    np.testing.assert_allclose(pooled, REFERENCE["pyramid/pooled"], rtol=1e-5, atol=1e-5)


def test_boxes_get_no_gradient():
    box = jnp.array([[1.0, 1, 4, 4]])
    gradient = jax.grad(
        lambda b: roi_align(ramp(6, 6), b, stride=1.0, output_size=2, sampling_ratio=2, aligned=True).sum()
    )(box)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("reduction", "ratio", "aligned"),
    [
        *(
            pytest.param(*method, True, marks=[] if method in QUICK else pytest.mark.slow)
            for method in METHODS
        ),
        pytest.param("mean", 0, False, marks=pytest.mark.slow),
    ],
)
def test_every_form_equals_the_plain_one(reduction, ratio, aligned):
    """Forward and gradient, with random boxes of all sizes, a pyramid that is partly padding, and rows of
    padding, which hold anything: those of the plain form zeros."""
    rng = np.random.default_rng(ratio)
    features = {f"p{k}": jnp.asarray(rng.normal(size=(48 >> k, 64 >> k, 3)), jnp.float32) for k in (2, 3)}
    map_sizes = {"p2": jnp.array([12, 13]), "p3": jnp.array([6, 7])}
    corner = rng.uniform(-12, 60, (60, 2))
    side = np.exp(rng.uniform(np.log(0.1), np.log(80), (60, 2)))
    real = np.concatenate([corner, corner + side], axis=1)
    degenerate = [[2, 2, 2, 2], [14, 14, 1, 1]]
    garbage = [[np.nan] * 4, [np.inf] * 4, [-1e30, -1e30, 1e30, 1e30]]
    count = len(real) + len(degenerate)
    cotangent = jnp.asarray(rng.normal(size=(count + 3, 3, 3, 3)), jnp.float32).at[count:].set(0)

    def pool_and_gradient(boxes, pool, **form):
        def pooled(features):
            settings = {"output_size": 3, "sampling_ratio": ratio, "aligned": aligned, "reduction": reduction}
            return pool(features, boxes, canonical_size=64.0, map_sizes=map_sizes, **settings, **form)

        values, transpose = jax.vjp(pooled, features)
        return values[:count], transpose(cotangent)[0]

    padded = np.concatenate([real, degenerate, np.zeros((3, 4))])
    expected = jax.jit(functools.partial(pool_and_gradient, pool=plain.multilevel_roi_align))(padded)
    padded[count:] = garbage
    for form in forms_of(reduction, ratio):
        pool = functools.partial(pool_and_gradient, pool=forms.multilevel_roi_align, form=form)
        found = jax.jit(pool)(padded)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, expected)


@pytest.mark.parametrize("shape", [(16, 48), pytest.param((40, 117), marks=pytest.mark.slow)])
def test_regions_of_many_windows(shape, monkeypatch):
    """On maps whose sides are or are not multiples of a window's, of more channels than a kernel takes."""
    monkeypatch.setattr(windows, "CHANNELS", 2)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32)
    corner, opposite = np.sort(rng.uniform(-5, np.array(shape[::-1]) + 5, (2, 12, 2)), axis=0)
    boxes = np.concatenate([corner, opposite], axis=1)
    boxes[0] = [0, 0, *shape[::-1]]
    boxes = jnp.asarray(boxes, jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(12, 5, 5, 3)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def pool_and_gradient(form):
        settings = {"stride": 1.0, "output_size": 5, "sampling_ratio": 2, "aligned": True}
        pooled, transpose = jax.vjp(lambda f: forms.roi_align(f, boxes, form=form, **settings), features)
        return pooled, transpose(cotangent)[0]

    for found, expected in zip(pool_and_gradient("windows"), pool_and_gradient("gather"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_features_are_summed_in_float32():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(8, 8, 4)), jnp.bfloat16)
    boxes = jnp.asarray([[0.3, 0.2, 7.1, 6.7]] * 200)

    @functools.partial(jax.jit, static_argnums=1)
    def pool_and_gradient(features, form):

        def pool(f):
            return roi_align(f, boxes, stride=1.0, output_size=7, sampling_ratio=2, aligned=True, form=form)

        pooled, transpose = jax.vjp(pool, features)
        return pooled, transpose(jnp.ones_like(pooled))[0]

    full = pool_and_gradient(features.astype(jnp.float32), "gather")
    for form in FORMS:
        for ours, expected in zip(pool_and_gradient(features, form), full, strict=True):
            assert ours.dtype == jnp.bfloat16
            # Within half a unit in the last place. The gradients of 200 equal boxes are added up; in bfloat16
            # the sum would stop growing at 256 times a summand.
            np.testing.assert_allclose(ours.astype(jnp.float32), expected, rtol=2.0**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "form"),
    [
        pytest.param(0, None, marks=pytest.mark.slow),
        (2, None),
        pytest.param(2, "windows", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("eight_devices")
def test_batch_equals_its_images_without_communication(ratio, form):
    rng = np.random.default_rng(0)
    shapes = {"p2": (8, 8), "p3": (4, 4)}
    features = {k: jnp.asarray(rng.normal(size=(8, *s, 2)), jnp.float32) for k, s in shapes.items()}
    corner = rng.uniform(0, 24, (8, 5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (8, 5, 2))], axis=-1)
    boxes = jnp.asarray(boxes, jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(8, 5, 3, 3, 2)), jnp.float32)

    def one(features, boxes, cotangent):
        settings = {"output_size": 3, "sampling_ratio": ratio, "aligned": True, "canonical_size": 48.0}
        pooled, transpose = jax.vjp(lambda f: multilevel_roi_align(f, boxes, form=form, **settings), features)
        return pooled, transpose(cotangent)[0]

    mesh = jax.make_mesh((8, 1), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)
    batch = jax.device_put((features, boxes, cotangent), NamedSharding(mesh, P("data")))
    local = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    plain = jax.jit(jax.vmap(one)).lower(*batch).compile()
    inside = jax.jit(local).lower(*batch).compile()
    assert not any(name in inside.as_text() for name in COLLECTIVES)

    single = jax.jit(one)
    images = [single(*jax.tree.map(lambda a, i=i: a[i], (features, boxes, cotangent))) for i in range(8)]
    expected = jax.tree.map(lambda *a: np.stack(a), *images)

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    for compiled in (plain, inside):
        jax.tree.map(close, compiled(*batch), expected)


@pytest.mark.parametrize("names", [("p2", "p4"), ("c4",), ()])
def test_wrong_levels_are_errors(names):
    features = {name: jnp.zeros((4, 4, 1)) for name in names}
    with pytest.raises(ValueError, match=r"must be named p2, p3, .* without gaps"):
        multilevel_roi_align(features, jnp.zeros((1, 4)), output_size=2, sampling_ratio=2, aligned=True)


def test_unknown_reductions_and_forms_are_errors():
    features, box = jnp.zeros((4, 4, 1)), jnp.zeros((1, 4))
    settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": 0, "aligned": True}
    with pytest.raises(ValueError, match="reduction is 'sum'; it must be 'mean' or 'max'"):
        roi_align(features, box, reduction="sum", **settings)
    known = "cached, gather, windows, einsum, or None"
    with pytest.raises(ValueError, match=f"form is 'scan'; it must be one of {known}"):
        roi_align(features, box, form="scan", **settings)
    with pytest.raises(ValueError, match="'windows' does not support reduction 'max'"):
        roi_align(features, box, reduction="max", form="windows", **settings)
    with pytest.raises(ValueError, match="'einsum' does not support reduction 'max' with sampling_ratio 0"):
        roi_align(features, box, reduction="max", form="einsum", **settings)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(("platform", "scatters"), [("cuda", 1), ("tpu", 0)])
def test_the_gradient_is_a_single_scatter_on_a_gpu_and_none_on_a_tpu(platform, scatters, sampling_ratio):
    def pooled(features):
        boxes = jnp.array([[1.0, 2, 9, 7], [0, 0, 16, 16]])
        settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": sampling_ratio}
        return roi_align(features, boxes, aligned=True, **settings).sum()

    gradient = jax.jit(jax.grad(pooled)).trace(jnp.ones((16, 16, 3)))
    text = gradient.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('"stablehlo.scatter"') == scatters


def test_values_and_gradient_can_be_exported_for_all_platforms_at_once():
    def pooled(features):
        settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": 2, "aligned": True}
        return roi_align(features, jnp.array([[1.0, 2, 9, 7]]), **settings).sum()

    platforms = "cpu", "cuda", "tpu"
    exported = jax.export.export(jax.jit(jax.value_and_grad(pooled)), platforms=platforms)(
        jax.ShapeDtypeStruct((16, 16, 3), jnp.float32)
    )
    assert exported.platforms == platforms
    value, gradient = exported.call(jnp.ones((16, 16, 3)))
    assert value == pytest.approx(12) and gradient.sum() == pytest.approx(12)
