import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.walkthrough.drawing import Panel, heat, save, sheet


def test_heat_rises_from_dark_to_bright():
    colours = heat(np.array([[0.0, 1.0, 2.0, 5.0]]), 0, 2)
    assert colours.dtype == np.uint8 and colours.shape == (1, 4, 3)
    grey = colours[0].astype(int).sum(axis=-1)
    assert grey[0] < grey[1] < grey[2] == grey[3]


def test_heat_of_equal_values_is_dark():
    assert (heat(np.ones((2, 2))) == heat(np.zeros((2, 2)))).all()


def test_boxes_are_in_cells():
    panel = Panel(np.zeros((4, 6, 3), np.uint8), scale=10)
    panel.box((1, 1, 5, 3), "#ffffff", width=2)
    picture = np.asarray(panel.finish())
    assert picture.shape == (40, 60, 3)
    assert picture[20, 11].min() > 200 and picture[20, 30].max() == 0 and picture[20, 5].max() == 0


def test_a_box_in_the_wrong_order_is_not_drawn():
    panel = Panel(np.zeros((4, 4, 3), np.uint8), scale=10)
    panel.box((3, 3, 1, 1), "#ffffff")
    assert np.asarray(panel.finish()).max() == 0


@pytest.mark.parametrize(("columns", "size"), [(2, (52, 52)), (3, (84, 20)), (1, (20, 84))])
def test_a_sheet_has_rows_of_columns(columns, size):
    panels = [Panel(np.zeros((2, 2, 3), np.uint8), scale=10) for _ in range(3)]
    assert sheet(panels, columns=columns).size == size


def test_saved_pictures_have_a_palette(tmp_path):
    picture = Panel(heat(np.random.default_rng(0).random((16, 16))), scale=4, title="noise").finish()
    save(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "P" and saved.size == (64, 64 + 28)
