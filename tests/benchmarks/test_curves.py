import pytest
from PIL import Image

from mrcnn_jax.benchmarks.curves import Panel, draw_panels


def test_curves_rise_from_corner_to_corner(tmp_path):
    rising = Panel("time", {"one": [(1.0, 1.0), (100.0, 1000.0)]})
    flat = Panel("time", {"one": [(1.0, 3.0), (100.0, 3.0)]})
    draw_panels([rising, flat, rising], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        picture = image.convert("RGB")
    assert picture.size == (960, 680)
    # The curve's ends, in the first colour, blue: x from 60 to 460, y from 304 up to 60.
    for x, y in ((60, 304), (459, 60), (540, 304), (939, 304), (60, 644)):
        red, green, blue = picture.getpixel((x, y))
        assert blue > red + 80 and blue > green + 40
    assert picture.getpixel((900, 600)) == (255, 255, 255)


def test_no_panels_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"curves.png: there are no curves to draw"):
        draw_panels([], tmp_path / "curves.png")
