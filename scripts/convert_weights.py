#!/usr/bin/env python3
"""``mrcnn-jax convert``: see mrcnn_jax/commands/convert.py."""

from mrcnn_jax.commands import run

run("convert")
