"""Runs a model that ``mrcnn-jax export`` wrote; it needs NumPy, and jax with flatbuffers or onnxruntime.

    python model.mrcnn image.npy photo.jpg

runs the copy of this package that the file has, and prints a line of JSON per image. The folder can be copied
anywhere, as it imports nothing else of mrcnn_jax. From Python:

    (found,) = runner.load("model.mrcnn")([pixels])  # uint8 RGB [H W 3], any number of images of any size
    (found,) = runner.load_onnx("model.onnx")([pixels])  # likewise

``found`` has boxes [N 4] (x1 y1 x2 y2 in pixels), scores [N], labels [N] (from 1), names and category_ids,
best first; with masks, crops (top, left, bool [h w]) of each and segmentations, COCO's compressed RLE; with
keypoints, keypoints [N K 3] (x, y, score). A .mrcnn file's have the bits of mrcnn_jax's detector, an .onnx
file's differ by rounding (docs/deployment.md, docs/onnx.md).
"""

from .detector import VERSION
from .mrcnn_model import Model, load
from .onnx_model import OnnxModel, load_onnx
from .pasting import paste_at_centres, paste_in_whole_pixels, to_rle
from .resizing import resize, resized_shape

__all__ = [
    "VERSION",
    "Model",
    "OnnxModel",
    "load",
    "load_onnx",
    "paste_at_centres",
    "paste_in_whole_pixels",
    "resize",
    "resized_shape",
    "to_rle",
]
