#!/usr/bin/env python3
"""``mrcnn-jax shapes``: see mrcnn_jax/commands/shapes.py."""

from mrcnn_jax.commands import run

run("shapes")
