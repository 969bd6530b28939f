#!/usr/bin/env python3
"""``mrcnn-jax reproduce``: see mrcnn_jax/commands/reproduce.py."""

from mrcnn_jax.commands import run

run("reproduce")
