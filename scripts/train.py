#!/usr/bin/env python3
"""``mrcnn-jax train``: see mrcnn_jax/commands/train.py."""

from mrcnn_jax.commands import run

run("train")
