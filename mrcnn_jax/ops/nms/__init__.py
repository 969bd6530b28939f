"""Greedy non-maximum suppression: ``plain.py`` is the definition, ``blocks.py`` the fast form in use."""

from mrcnn_jax.ops.nms.blocks import nms
from mrcnn_jax.ops.nms.levels import nms_levels

__all__ = ["nms", "nms_levels"]
