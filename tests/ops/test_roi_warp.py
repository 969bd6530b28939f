import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import roi_warp as roi_warp_module
from mrcnn_jax.ops.roi_align import roi_align
from mrcnn_jax.ops.roi_pool import roi_pool
from mrcnn_jax.ops.roi_warp import multilevel_roi_warp

OPTIONS = ("output_size", "sampling_ratio", "reduction", "form")
pytestmark = pytest.mark.usefixtures("on_cpu")
METHODS = [("mean", 2), ("mean", 0), ("max", 2), ("max", 0)]  # reduction and sampling ratio
roi_warp = jax.jit(roi_warp_module.roi_warp, static_argnames=("stride", *OPTIONS))


@functools.partial(jax.jit, static_argnames=("stride", *OPTIONS))
def warp_and_gradient(features, boxes, cotangent, **settings):
    pooled, transpose = jax.vjp(lambda f: roi_warp(f, boxes, **settings), features)
    return pooled, transpose(cotangent)[0]


def ramp(height, width):
    """A map whose two channels hold the x and the y of each cell."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=-1).astype(np.float32)


def test_by_hand():
    # Corners at x = 0.5 and 2.5 round to cells 1 and 3, those at y = 0.25 and 1.4 to 0 and 1. So the region
    # covers x from 0.5 to 3.5 and y from -0.5 to 1.5, and has bins of 1.5 x 1 cells, one point in each.
    box = np.array([[0.5, 0.25, 2.5, 1.4]], np.float32)
    settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": 1}
    warped = roi_warp(ramp(6, 6), box, **settings)[0]
    np.testing.assert_array_equal(warped[..., 0], [[1.25, 2.75], [1.25, 2.75]])
    np.testing.assert_array_equal(warped[..., 1], [[0, 0], [1, 1]])
    # RoIAlign gives the positions in the box itself.
    aligned = roi_align(jnp.asarray(ramp(6, 6)), jnp.asarray(box), aligned=False, **settings)[0]
    np.testing.assert_allclose(aligned[..., 0], [[1, 2], [1, 2]])
    np.testing.assert_allclose(aligned[..., 1], [[0.5375, 0.5375], [1.1125, 1.1125]])


def test_maximum_by_hand():
    # Columns 1 to 3 and row 1: points at x = 0.875 and 1.625, 2.375 and 3.125, and y = 0.625 to 1.375.
    box = np.array([[0.5, 0.5, 2.5, 1.4]], np.float32)
    settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": 2, "reduction": "max"}
    warped, gradient = warp_and_gradient(ramp(6, 6), box, np.ones((1, 2, 2, 2), np.float32), **settings)
    np.testing.assert_array_equal(warped[0, ..., 0], [[1.625, 3.125], [1.625, 3.125]])
    np.testing.assert_array_equal(warped[0, ..., 1], [[0.875, 0.875], [1.375, 1.375]])
    # The largest x lies between columns 1 and 2, or 3 and 4, and the first of its two points between rows 0
    # and 1, or 1 and 2.
    rows, columns = [0.375, 1.5, 0.125, 0, 0, 0], [0, 0.375, 0.625, 0.875, 0.125, 0]
    np.testing.assert_array_equal(gradient[..., 0], np.outer(rows, columns))


def test_regions_outside_the_map_by_hand():
    # Cells -1 and 0, 3 and 4, 5, in a strip of 4: halves round away from 0, and points up to one cell outside
    # take the value at the edge. In the wrong order, the corners 2 and 1 are cell 2.
    strip = np.array([[[10.0], [20], [30], [40]]], np.float32)
    boxes = np.array([[-0.5, 0, 0.4, 0], [3, 0, 4, 0], [5, 0, 5, 0], [2, 0, 1, 0]], np.float32)
    pooled = roi_warp(strip, boxes, stride=1.0, output_size=1, sampling_ratio=2)
    # points at -1 and 0, 3 and 4, 4.75 and 5.25, 1.75 and 2.25
    np.testing.assert_allclose(pooled[:, 0, 0, 0], [10, 40, 0, 30])


@pytest.mark.parametrize(("reduction", "ratio"), [("mean", 2), ("max", 0)])
def test_equals_roi_align_of_whole_cells(reduction, ratio):
    rng = np.random.default_rng(0)
    features = {f"p{k}": jnp.asarray(rng.normal(size=(64 >> k, 96 >> k, 3)), jnp.float32) for k in (2, 3)}
    first = rng.integers(-1, 5, (20, 2))  # cells of p3
    last = first + rng.integers(1, 7, (20, 2))
    cells = np.concatenate([first, last], axis=1)
    one_more = np.array([0, 0, 1, 1])
    # A box that is up to half a cell off is rounded to the same cells. On p2, cell k is 2k and 2k + 1.
    boxes = {2: 2 * cells + one_more + rng.uniform(-0.4, 0.4, cells.shape)}
    boxes[3] = cells + rng.uniform(-0.4, 0.4, cells.shape)
    regions = jnp.asarray(8.0 * (cells + one_more), jnp.float32)
    settings = {"output_size": 3, "sampling_ratio": ratio, "reduction": reduction}

    @jax.jit
    def warp_and_align(features):
        found = []
        for level, canonical_size in ((2, 1e6), (3, 1e-6)):  # which puts all boxes on that level
            pixels = jnp.asarray(2**level * boxes[level], jnp.float32)
            one, pyramid = {"stride": 2.0**level, **settings}, {"canonical_size": canonical_size, **settings}
            aligned = roi_align(features[f"p{level}"], regions, aligned=True, **one)
            found += [
                (roi_warp_module.roi_warp(features[f"p{level}"], pixels, **one), aligned),
                (multilevel_roi_warp(features, pixels, **pyramid), aligned),
            ]
        return found

    for warped, aligned in warp_and_align(features):
        np.testing.assert_allclose(warped, aligned, rtol=1e-6, atol=1e-6)


def test_the_level_is_that_of_the_box_before_rounding():
    # 15 x 15 pixels are for p2 below 16 x 16, although cells 0 to 4 of 4 pixels, 20 x 20, would be for p3.
    features = {"p2": jnp.full((8, 8, 1), 2.0), "p3": jnp.full((4, 4, 1), 3.0)}
    boxes = jnp.array([[0.0, 0, 15, 15], [0, 0, 17, 17]])
    pooled = multilevel_roi_warp(features, boxes, output_size=1, sampling_ratio=2, canonical_size=32.0)
    np.testing.assert_array_equal(pooled[:, 0, 0, 0], [2, 3])


def test_equals_roi_pool_where_every_bin_is_a_cell():
    """With one point, at the cell's centre: the same rounding of the same boxes."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 40, 3)).astype(np.float32)
    corner = rng.uniform(-4, 120, (200, 2))
    boxes = np.concatenate([corner, corner + 24 + rng.uniform(-2, 2, (200, 2))], axis=1).astype(np.float32)
    pooled = jax.jit(roi_pool, static_argnames=("stride", "output_size"))(
        features, boxes, stride=4.0, output_size=7
    )
    warped = roi_warp(features, boxes, stride=4.0, output_size=7, sampling_ratio=1)
    size = np.floor(boxes[:, 2:] / 4 + 0.5) - np.floor(boxes[:, :2] / 4 + 0.5) + 1
    inside = (boxes > 0).all(axis=1) & (boxes[:, 2:] < [156, 116]).all(axis=1)
    seven = (size == 7).all(axis=1) & inside
    assert 20 < seven.sum() < inside.sum()
    np.testing.assert_array_equal(warped[seven], pooled[seven])


@pytest.mark.slow
@pytest.mark.parametrize(("reduction", "ratio"), METHODS)
def test_numerical_gradient(reduction, ratio):
    rng = np.random.default_rng(0)
    features, direction = rng.normal(size=(2, 9, 11, 2)).astype(np.float32)
    boxes = np.array([[1.0, 1, 33, 26], [5, 5, 12, 12], [-6, 20, 8, 50]], np.float32)
    cotangent = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    settings = {"stride": 4.0, "output_size": 3, "sampling_ratio": ratio, "reduction": reduction}
    _, gradient = warp_and_gradient(features, boxes, cotangent, **settings)
    step = np.float32(1e-3)  # so small that no other point becomes the largest
    after, before = (roi_warp(features + s * direction, boxes, **settings) for s in (step, -step))
    slope = np.sum(np.asarray(after - before) * cotangent) / (2 * step)
    assert slope == pytest.approx(float(np.sum(gradient * direction)), rel=1e-3)


def test_features_and_boxes_in_padding_have_no_effect():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(9, 11, 2)).astype(np.float32)
    canvas = np.full((16, 24, 2), 1e9, np.float32)
    canvas[:9, :11] = image
    real = [[1.0, 1, 60, 50], [5, 5, 12, 12], [36, 20, 44, 36], [70, 50, 90, 60]]
    garbage = [[np.nan] * 4, [np.inf] * 4, [-1e30, -1e30, 1e30, 1e30]]
    cotangent = np.ones((7, 3, 3, 2), np.float32)
    cotangent[4:] = 0
    for reduction, ratio in (("mean", 0), ("max", 2)):
        settings = {"stride": 4.0, "output_size": 3, "sampling_ratio": ratio, "reduction": reduction}
        clean = np.array(real + [[0.0] * 4] * 3, np.float32)
        expected, slope = warp_and_gradient(image, clean, cotangent, **settings)
        padded = jnp.array(real + garbage, jnp.float32)

        @jax.jit
        def on_canvas(canvas, padded=padded, settings=settings):
            size = jnp.array([9, 11])
            pooled, transpose = jax.vjp(lambda f: roi_warp(f, padded, map_size=size, **settings), canvas)
            return pooled, transpose(cotangent)[0]

        pooled, gradient = on_canvas(canvas)
        np.testing.assert_array_equal(pooled[:4], expected[:4])
        np.testing.assert_array_equal(pooled[3], np.zeros((3, 3, 2)))
        np.testing.assert_array_equal(gradient[:9, :11], slope)
        gradient = np.array(gradient)
        gradient[:9, :11] = 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("reduction", "ratio"), METHODS)
def test_all_forms_of_roi_align_serve(reduction, ratio):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 30, 2)).astype(np.float32)
    corner = rng.uniform(-5, 100, (6, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (6, 2))], axis=1).astype(np.float32)
    settings = {"stride": 4.0, "output_size": 3, "sampling_ratio": ratio, "reduction": reduction}
    expected = roi_warp(features, boxes, **settings)
    for form in ("gather", "windows", "einsum"):
        if (reduction, form) != ("max", "windows") and (reduction, ratio, form) != ("max", 0, "einsum"):
            found = roi_warp(features, boxes, form=form, **settings)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_boxes_and_no_gradient_to_boxes():
    features, settings = jnp.ones((6, 6, 2)), {"stride": 1.0, "output_size": 2, "sampling_ratio": 2}
    assert roi_warp(features, jnp.zeros((0, 4)), **settings).shape == (0, 2, 2, 2)
    gradient = jax.jit(jax.grad(lambda b: roi_warp(features, b, **settings).sum()))(jnp.ones((1, 4)))
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_wrong_arguments_are_errors():
    features, box = jnp.zeros((4, 4, 1)), jnp.zeros((1, 4))
    with pytest.raises(ValueError, match="reduction is 'sum'; it must be 'mean' or 'max'"):
        roi_warp(features, box, stride=1.0, output_size=2, sampling_ratio=2, reduction="sum")
    with pytest.raises(ValueError, match=r"\['p2', 'p4'\] must be named p2, p3, .* without gaps"):
        multilevel_roi_warp({"p2": features, "p4": features}, box, output_size=2, sampling_ratio=2)
