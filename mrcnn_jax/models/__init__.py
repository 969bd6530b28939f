"""Learned layers, one per file, and ``mask_rcnn``, which composes them."""
