#!/usr/bin/env python3
"""``mrcnn-jax evaluate``: see mrcnn_jax/commands/evaluate.py."""

from mrcnn_jax.commands import run

run("evaluate")
