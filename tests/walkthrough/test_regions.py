import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.roi_align import roi_align
from mrcnn_jax.walkthrough.regions import draw_align, draw_pool, pooled_cells, sampling_points


def test_points_by_hand():
    """A box of 4 x 2 cells: bins are 2 x 1 cells, with points at a quarter and three quarters of each."""
    box = np.array([16.0, 32.0, 80.0, 64.0])
    x, y = sampling_points(box, (8, 8), stride=16, output_size=2, points=2)
    np.testing.assert_allclose(x, [[1.5, 2.5], [3.5, 4.5]])
    np.testing.assert_allclose(y, [[2.25, 2.75], [3.25, 3.75]])


@pytest.mark.parametrize("aligned", [True, False])
def test_bins_are_the_means_of_their_points(aligned):
    box = np.array([21.0, 35.0, 83.0, 90.0])
    options = {"stride": 16.0, "output_size": 3, "aligned": aligned}
    x, y = sampling_points(box, (8, 8), points=2, **options)
    rows, columns = np.mgrid[:8, :8].astype(np.float32) + 0.5  # positions of the cells' centres
    maps = jnp.asarray(np.stack([columns, rows], axis=-1))
    pooled = np.asarray(roi_align(maps, jnp.asarray(box, jnp.float32)[None], sampling_ratio=2, **options))[0]
    np.testing.assert_allclose(pooled[0, :, 0], x.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(pooled[:, 0, 1], y.mean(axis=1), rtol=1e-5)


def test_pooled_cells_by_hand():
    """Corners at 1.3 and 4.4 cells are rounded to 1 and 4: 4 cells in 2 bins; at 2.6 and 4.4, 2 cells."""
    box = np.array([1.3, 2.6, 4.4, 4.4]) * 16
    bins = pooled_cells(box, (8, 8), stride=16, output_size=2)
    np.testing.assert_array_equal(bins[0], [[1, 3, 3, 4], [3, 3, 5, 4]])
    np.testing.assert_array_equal(bins[1], [[1, 4, 3, 5], [3, 4, 5, 5]])


def test_pictures_show_bins_and_points():
    cells, box = np.zeros((8, 8, 3), np.uint8), np.array([21.0, 35.0, 83.0, 90.0])
    align = draw_align(cells, box, stride=16, output_size=2, points=2, scale=20, title="").finish()
    pool = draw_pool(cells, box, stride=16, output_size=2, scale=20, title="").finish()
    assert align.size == pool.size == (160, 160)
    x, y = sampling_points(box, (8, 8), stride=16, output_size=2, points=2)
    red, green, blue = align.getpixel((round(x[0, 0] * 20), round(y[0, 0] * 20)))
    assert red > 200 > 100 > max(green, blue)
    x1, y1, *_ = pooled_cells(box, (8, 8), stride=16, output_size=2)[0, 0]
    red, green, blue = pool.getpixel((round(x1 * 20 + 2), round(y1 * 20 + 10)))
    assert blue > 150 > red
