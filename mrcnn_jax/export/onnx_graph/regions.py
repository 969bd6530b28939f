"""RoIAlign: the features of boxes, each from the level of the pyramid that suits its size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.export.onnx_graph import boxes as box_arithmetic
from mrcnn_jax.export.onnx_graph.arrays import as_int, ascending, columns, join, length, take, where_true
from mrcnn_jax.export.onnx_graph.backbone import stage
from mrcnn_jax.export.onnx_graph.graph import Graph, Value
from mrcnn_jax.ops.levels import level_numbers

_IMAGE = numpy_helper.from_array(np.zeros(1, np.int64))  # the only one


class Regions:
    """The features of some boxes, in an order of their own: that of the levels that they come from.

    So no features are moved after pooling, only what a head makes of them, which is less.
    """

    def __init__(self, graph: Graph, features: Value, order: Value | None, cells: int) -> None:
        self.features = features  # [N C P P]
        self.cells = cells  # P
        self._graph, self._order = graph, order
        self._places = None if order is None else ascending(graph, order)[1]

    def sort(self, rows: Value) -> Value:
        """``rows`` with one for each box, in the order of the features."""
        return rows if self._order is None else take(self._graph, self._order, rows)

    def restore(self, rows: Value) -> Value:
        """``rows`` with one for each region, in the order of the boxes."""
        return rows if self._places is None else take(self._graph, self._places, rows)


@dataclass(frozen=True)
class Maps:
    """The maps that regions are pooled from, with the pixels per cell of each, by level."""

    graph: Graph
    maps: Mapping[str, Value]
    strides: Mapping[str, int]
    res5: Sequence[Any] | None  # the stage that regions go through with features "c4"
    config: ModelConfig

    def pool(self, boxes: Value, size: int) -> Regions:
        """The features of ``size x size`` bins of ``boxes`` [N 4], before any layer of a head of its own."""
        graph, config = self.graph, self.config
        if config.features != "fpn":
            (level,) = self.strides
            pooled = self._align(level, boxes, size)
            if self.res5 is None:
                return Regions(graph, pooled, None, size)
            return Regions(graph, stage(graph, self.res5, pooled), None, -(-size // config.res5_stride))
        levels = level_numbers(self.strides)
        own_level = assign_levels(graph, boxes, levels, config)
        rows = [where_true(graph, graph.Equal(own_level, level)) for level in levels]
        pooled_of_levels = [
            self._align(f"p{level}", take(graph, own, boxes), size)
            for level, own in zip(levels, rows, strict=True)
        ]
        return Regions(graph, join(graph, pooled_of_levels), join(graph, rows), size)

    def _align(self, level: str, boxes: Value, size: int) -> Value:
        graph, config = self.graph, self.config
        return graph.RoiAlign(
            self.maps[level],
            boxes,
            graph.ConstantOfShape(length(graph, boxes), value=_IMAGE),
            output_height=size,
            output_width=size,
            sampling_ratio=config.roi_sampling_ratio,
            spatial_scale=1 / self.strides[level],
            coordinate_transformation_mode="half_pixel" if config.roi_aligned else "output_half_pixel",
        )


def assign_levels(graph: Graph, boxes: Value, levels: list[int], config: ModelConfig) -> Value:
    """The level of each of ``boxes`` [N 4] among ``levels``: int64 [N], as in ``ops/levels.py``."""

    def log2(x: Value) -> Value:
        return graph.Log(x) / math.log(2)

    width, height = box_arithmetic.sides(columns(graph, boxes, 4))
    root = graph.Sqrt(graph.Max(width, 0.0) * graph.Max(height, 0.0))
    size = config.roi_canonical_size
    match config.roi_level_rule:
        case "detectron2":
            level = 4.0 + log2(root / size + 1e-8)
        case "torchvision":
            level = 4.0 + log2(root / size) + 1e-6
        case "mmdetection":
            level = 2.0 + graph.Floor(log2(root / (size / 4.0) + 1e-6))
    level = graph.Clip(graph.Floor(level), float(levels[0]), float(levels[-1]))
    return as_int(graph, graph.Reshape(level, [-1]))
