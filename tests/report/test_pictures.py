import base64
import io
import re

import numpy as np
from PIL import Image

from mrcnn_jax.report.pictures import LONG_SIDE, Figure, encode, figures

NOISE = np.random.default_rng(0).integers(0, 256, (200, 400, 3)).astype(np.uint8)
PLAIN = np.full((30, 20, 3), 200, np.uint8)


def test_pictures_are_shrunk():
    data, size = encode(np.full((500, 1000, 3), 200, np.uint8), 10**7)
    assert size == (LONG_SIDE, LONG_SIDE // 2)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == size and image.format == "WEBP"
    assert encode(PLAIN, 10**7)[1] == (20, 30)


def test_pictures_keep_to_a_number_of_bytes():
    sizes = []
    for limit in (60_000, 20_000, 2000):
        data, size = encode(NOISE, limit)
        assert len(data) <= limit
        sizes.append(size[0])
    assert sizes[0] >= sizes[1] > sizes[2]
    assert encode(NOISE, 1)[1] == (1, 1)


def test_all_pictures_together_keep_to_a_number_of_bytes():
    items = [Figure([(NOISE, "left <"), (NOISE, "right")], "a & b") for _ in range(2)]
    text = figures(items, most_bytes=100_000)
    found = re.findall('src="data:image/webp;base64,(.*?)"', text)
    assert len(found) == 4 and sum(map(len, found)) <= 100_000
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as image:
        assert f'width="{image.width}" height="{image.height}"' in text
    assert 'alt="left &lt;"' in text and "<figcaption>a &amp; b</figcaption>" in text
    assert 'class="pair one"' in figures([Figure([(PLAIN, "alone")], "")], most_bytes=1000)
    assert figures([], most_bytes=1000) == '<div class="pictures"></div>'
