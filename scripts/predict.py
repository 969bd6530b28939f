#!/usr/bin/env python3
"""``mrcnn-jax predict``: see mrcnn_jax/commands/predict.py."""

from mrcnn_jax.commands import run

run("predict")
