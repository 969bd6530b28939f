"""Configs from Detectron2's YAML files.

``files.py`` reads a file and those that it is based on, ``defaults.py`` has what these leave out, and
``convert.py`` says what each key is here.
"""

from mrcnn_jax.config.detectron2.convert import read_config

__all__ = ["read_config"]
