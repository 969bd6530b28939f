"""Greedy non-maximum suppression: ``plain.py`` defines it, ``blocks.py`` is the fast form in use."""

from mrcnn_jax.ops.nms.blocks import nms

__all__ = ["nms"]
