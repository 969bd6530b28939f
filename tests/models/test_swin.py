"""Swin's windows by hand; tests/models/test_four_stages.py compares the model with torchvision's."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.models.swin import pairs_of_shifted


def _neighbours(rows, columns, canvas):
    """Whom each cell of a shifted map sees, as ``[H W H W]``, for an image of so many rows and columns."""
    mask = np.zeros((1, *canvas, 1), bool)
    mask[:, :rows, :columns] = True
    pairs = np.asarray(pairs_of_shifted(jnp.asarray(mask)))[:, 0]
    height, width = (-(-side // 7) * 7 for side in canvas)
    cells = np.arange(height * width).reshape(height, width)
    windows = np.roll(cells, (-3, -3), (0, 1)).reshape(height // 7, 7, width // 7, 7).swapaxes(1, 2)
    seen = np.zeros((height * width, height * width), bool)
    for window, together in zip(windows.reshape(-1, 49), pairs, strict=True):
        seen[np.ix_(window, window)] = together
    return seen.reshape(height, width, height, width)


def test_shifted_windows_by_hand():
    """Of 10 x 5 cells, filled to 14 x 7: rows 0-2, 3-9 and 10-13 are apart, and columns 0-2 and 3-6."""
    seen = _neighbours(10, 5, (10, 5))
    row_windows, column_windows = np.repeat([0, 1, 2], [3, 7, 4]), np.repeat([0, 1], [3, 4])
    same_row = row_windows[:, None] == row_windows[None, :]
    same_column = column_windows[:, None] == column_windows[None, :]
    np.testing.assert_array_equal(seen, same_row[:, None, :, None] & same_column[None, :, None, :])


@pytest.mark.parametrize("canvas", [(10, 9), (14, 14), (15, 40)])
def test_an_image_sees_the_same_cells_on_any_canvas(canvas):
    alone, seen = _neighbours(10, 5, (10, 5)), _neighbours(10, 5, canvas)
    np.testing.assert_array_equal(seen[:14, :7, :14, :7], alone)
    assert not seen[:14, :7, 14:].any() and not seen[:14, :7, :, 7:].any()
