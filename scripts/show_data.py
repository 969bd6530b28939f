#!/usr/bin/env python3
"""``mrcnn-jax show``: see mrcnn_jax/commands/show.py."""

from mrcnn_jax.commands import run

run("show")
