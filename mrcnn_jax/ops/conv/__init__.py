"""Convolutions: ``plain.py`` is the definition, ``forms.py`` chooses among it and faster ones for CPUs."""

from mrcnn_jax.ops.conv.forms import add_bias, convolve

__all__ = ["add_bias", "convolve"]
