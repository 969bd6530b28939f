import io

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.image_size import header_size, upright_size
from mrcnn_jax.images import read_image


def encoded(form, orientation=None):
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(file, format=form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_upright_image(form):
    for orientation, size in ((None, (20, 30)), (3, (20, 30)), (6, (30, 20))):
        data = encoded(form, orientation)
        assert header_size(data, name="") == size
        assert upright_size(data, name="") == (size, size == (30, 20))
        assert read_image(data).shape[:2] == size


def test_an_array():
    file = io.BytesIO()
    np.save(file, np.zeros((20, 30, 7), np.float32))
    assert header_size(file.getvalue(), name="") == (20, 30)


def test_the_header_is_enough():
    cut = encoded("PNG")[:45]  # in the pixels
    assert header_size(cut, name="") == (20, 30)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read: "):
        upright_size(cut, name="a.png")


def test_what_is_no_image():
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read: not an image"):
        header_size(b"text of some length", name="a.jpg")
