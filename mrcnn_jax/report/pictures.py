"""Pictures inside a page, small enough that the page stays below a bound."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mrcnn_jax.report.page import Child, Html, element

Picture = UInt8[np.ndarray, "_ _ 3"]

LONG_SIDE = 640  # pixels of an embedded picture at most
MOST_BYTES = 12_000_000  # of all pictures of a page, encoded
_QUALITIES = (82, 65, 45)  # of WebP, tried in this order


@dataclass(frozen=True)
class Figure:
    """One picture, or two side by side, each with its text alternative, and a caption."""

    pictures: Sequence[tuple[Picture, str]]
    caption: Child


def figures(items: Sequence[Figure], *, most_bytes: int) -> Html:
    """The figures in columns. All their pictures together take ``most_bytes`` at most, as text."""
    count = sum(len(item.pictures) for item in items)
    limit = most_bytes * 3 // 4 // max(count, 1)  # base64 has four characters for three bytes
    return element("div", (_figure(item, limit) for item in items), class_="pictures")


def encode(picture: Picture, most_bytes: int) -> tuple[bytes, tuple[int, int]]:
    """The picture as WebP of ``most_bytes`` at most, and its width and height.

    It is shrunk to ``LONG_SIDE``, and further if no quality is small enough.
    """
    image = Image.fromarray(picture)
    image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= most_bytes or max(image.size) == 1:
                return buffer.getvalue(), image.size
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def _figure(item: Figure, most_bytes: int) -> Html:
    images = []
    for picture, text in item.pictures:
        data, (width, height) = encode(picture, most_bytes)
        source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        images.append(element("img", src=source, alt=text, width=width, height=height, decoding="async"))
    pair = element("div", images, class_="pair" if len(images) > 1 else "pair one")
    return element("figure", pair, element("figcaption", item.caption))
