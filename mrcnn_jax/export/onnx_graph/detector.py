"""A detector as an ONNX graph, from the pixels of an image of any size to its detections.

The stages are those of ``inference/predict.py``. An image is padded as the model pads it, and no further, so
nothing has to be masked out.
"""

from functools import partial

import numpy as np
import onnx

from mrcnn_jax.config import Config
from mrcnn_jax.export.onnx_graph.arrays import as_float
from mrcnn_jax.export.onnx_graph.backbone import backbone, normalize
from mrcnn_jax.export.onnx_graph.detections import detect_boxes
from mrcnn_jax.export.onnx_graph.graph import Graph
from mrcnn_jax.export.onnx_graph.keypoints import keypoints
from mrcnn_jax.export.onnx_graph.layers import layer_names
from mrcnn_jax.export.onnx_graph.masks import mask_probabilities
from mrcnn_jax.export.onnx_graph.proposals import propose
from mrcnn_jax.export.onnx_graph.pyramid import pyramid
from mrcnn_jax.export.onnx_graph.regions import Maps
from mrcnn_jax.models.fpn import FPN
from mrcnn_jax.models.mask_rcnn import MaskRCNN

_N = "detections"  # the name of their number
_ABOUT = (
    "Objects in an image, best first. Resize the image as the metadata say (data.resize, short_side, "
    "long_side); boxes and keypoints are in pixels of the resized image."
)


def detector_graph(model: MaskRCNN, config: Config, metadata: dict[str, str]) -> onnx.ModelProto:
    """The ONNX model of ``model``, whose batch norms must be folded and whose dtype is taken to be float32.

    Its input is ``image`` [height width channels], float32, 0 to 255. Its outputs are ``boxes`` [D 4],
    ``scores`` [D], ``labels`` [D], and, if the model has them, ``masks`` [D M M] and ``keypoints`` [D K 3]:
    the fields of ``Detections``, of valid rows alone.
    """
    graph = Graph(layer_names(model))
    channels = len(config.model.pixel_mean)
    image = graph.input(
        "image", np.float32, ["height", "width", channels], "pixels of the resized image, 0 to 255, RGB"
    )
    with graph.section("backbone"):
        normalized = normalize(graph, image, config.model)
        maps = backbone(graph, model.backbone, normalized)
    if isinstance(model.fpn, FPN):
        with graph.section("fpn"):
            maps = pyramid(graph, model.fpn, maps)
    sides = as_float(graph, graph.Shape(image))
    image_size = [graph.Gather(sides, axis) for axis in (0, 1)]
    padded_size = graph.Slice(graph.Shape(normalized), [2], [4])
    with graph.section("proposals"):
        proposals = propose(
            graph, model, maps, image_size=image_size, padded_size=padded_size, test=config.test
        )
    levels = model.strides if model.fpn is None else model.fpn.pooled_levels
    pooled = {level: model.strides[level] for level in levels}
    pooled_maps = Maps(graph, maps, pooled, model.res5, config.model)
    with graph.section("detections"):
        boxes, scores, labels = detect_boxes(
            graph, model, pooled_maps, proposals, image_size=image_size, config=config
        )
    output = partial(graph.output, dtype=np.float32)
    output("boxes", boxes, shape=[_N, 4], about="x1 y1 x2 y2 in pixels of the resized image, inside it")
    output("scores", scores, shape=[_N], about="0 to 1, descending")
    output("labels", labels, dtype=np.int64, shape=[_N], about="1 to the number of categories")
    if model.mask_head is not None:
        with graph.section("masks"):
            masks = mask_probabilities(graph, model, pooled_maps, boxes, labels, config=config.model)
        about = "probabilities over each box, whose first row is at the top"
        output("masks", masks, shape=[_N, "mask_rows", "mask_columns"], about=about)
    if model.keypoint_head is not None:
        with graph.section("keypoints"):
            points = keypoints(graph, model, pooled_maps, boxes, config=config)
        about = "x, y in pixels of the resized image, and a score"
        output("keypoints", points, shape=[_N, "keypoints", 3], about=about)
    return graph.model(_ABOUT, metadata)
