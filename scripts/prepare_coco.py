#!/usr/bin/env python3
"""``mrcnn-jax prepare``: see mrcnn_jax/commands/prepare.py."""

from mrcnn_jax.commands import run

run("prepare")
