"""The picture of a table's differences."""

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.paper.picture import draw_differences
from mrcnn_jax.paper.summary import differences
from mrcnn_jax.paper.tables import TABLES

TABLE = TABLES["2c"]
BLUE, GRAY = (30, 120, 210), (154, 164, 176)


def _widths(tmp_path, ours):
    """Pixels of the paper's bars and of ours, where every row is ``ours`` points better than the first."""
    scores = {
        row.config: {
            seed: dict.fromkeys(row.paper, 10.0 + (ours if row != TABLE.rows[0] else 0)) for seed in (0, 1)
        }
        for row in TABLE.rows
    }
    draw_differences(TABLE, differences(TABLE, scores), tmp_path / "table.png")
    pixels = np.asarray(Image.open(tmp_path / "table.png").convert("RGB"), int)[92:-40]
    return [int((np.abs(pixels - color).sum(axis=-1) < 40).sum()) for color in (GRAY, BLUE)]


def test_bars_are_as_long_as_the_differences(tmp_path):
    gray, blue = _widths(tmp_path, 4.0)
    gray_twice, blue_half = _widths(tmp_path, 2.0)
    assert 1.6 < (blue / gray) / (blue_half / gray_twice) < 2.6


def test_a_single_seed_is_drawn(tmp_path):
    scores = {row.config: {0: dict.fromkeys(row.paper, 10.0)} for row in TABLE.rows}
    draw_differences(TABLE, differences(TABLE, scores), tmp_path / "table.png")
    assert (tmp_path / "table.png").is_file()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match=r"table\.png: there are no differences"):
        draw_differences(TABLE, [], tmp_path / "table.png")
