"""Greedy non-maximum suppression: ``plain.py`` is the definition, ``blocks.py`` the fast form in use."""

from mrcnn_jax.ops.nms.blocks import nms

__all__ = ["nms"]
