"""Convolutions: ``plain.py`` is the definition, ``cpu.py`` is faster on CPUs, ``forms.py`` chooses."""

from mrcnn_jax.ops.conv.forms import add_bias, convolve

__all__ = ["add_bias", "convolve"]
