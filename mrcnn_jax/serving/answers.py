"""What the server answers: results as JSON and as pictures, and a description of the model."""

import io
from typing import Any

from PIL import Image

from mrcnn_jax.images import decode_image
from mrcnn_jax.inference.coco_sections import coco_categories
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.inference.results import Result
from mrcnn_jax.serving.uploads import Limits, Upload

_PNG_COMPRESSION = 1  # of 9: a picture of 12 megapixels takes a third of the time, and a fifth more bytes


def describe_results(results: list[Result], uploads: list[Upload]) -> list[dict[str, Any]]:
    """Each image with its objects, which are entries of a COCO results list; ids count from 1."""
    return [
        {
            "id": number,
            "file_name": upload.name,
            "height": result.image_size[0],
            "width": result.image_size[1],
            "objects": result.to_coco(number),
        }
        for number, (result, upload) in enumerate(zip(results, uploads, strict=True), start=1)
    ]


def drawn(result: Result, upload: Upload) -> bytes:
    """A PNG of the image with its objects, as ``mrcnn-jax predict`` draws them."""
    pixels = decode_image(upload.data, result.pixels, name=upload.place)
    file = io.BytesIO()
    picture = draw(result.pixels.show(pixels), result)
    Image.fromarray(picture).save(file, format="PNG", compress_level=_PNG_COMPRESSION)
    return file.getvalue()


def describe_model(detector: Detector, name: str, limits: Limits, score_threshold: float) -> dict[str, Any]:
    """The model, its categories in COCO's format, and what a request may carry."""
    return {
        "name": name,
        "step": detector.step,
        "categories": coco_categories(detector.categories),
        "masks": detector.config.model.mask,
        "lowest_score": detector.config.test.score_threshold,
        "score_threshold": score_threshold,
        "limits": {"bytes": limits.bytes, "pixels": limits.pixels, "images": limits.images},
    }
