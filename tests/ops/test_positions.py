"""Tables of positions against torch's interpolation, and by hand."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.positions import relative_positions, resize_positions

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures/torch_positions.npz")


def test_distances_by_hand():
    """Row i, column j has the vector of i - j; the table begins with that of -2."""
    table = jnp.arange(5.0)[:, None]
    found = relative_positions(table, 3)[..., 0]
    np.testing.assert_array_equal(found, [[2, 1, 0], [3, 2, 1], [4, 3, 2]])


@pytest.mark.parametrize("size", [(14, 14), (5, 9), (16, 31)])
def test_grids_equal_torch(size):
    found = resize_positions(jnp.asarray(REFERENCE["grid"]), size)
    np.testing.assert_allclose(found, REFERENCE[f"grid/{size[0]}x{size[1]}"], atol=1e-5)


@pytest.mark.parametrize("length", [7, 13, 27])
def test_lines_equal_torch(length):
    """The table of as many cells as fit, read off its first column and its first row."""
    cells = (length + 1) // 2
    found = relative_positions(jnp.asarray(REFERENCE["line"]), cells)
    line = jnp.concatenate([found[0, ::-1], found[1:, 0]])
    np.testing.assert_allclose(line, REFERENCE[f"line/{length}"], atol=1e-5)  # torch's places are float32
