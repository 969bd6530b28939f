"""Convolutions: ``plain.py`` defines them, ``forms.py`` chooses what is fastest: on a CPU ``cpu.py``."""

from mrcnn_jax.ops.conv.forms import add_bias, convolve

__all__ = ["add_bias", "convolve"]
