#!/usr/bin/env python3
"""``mrcnn-jax compile_report``: see mrcnn_jax/commands/compile_report.py."""

from mrcnn_jax.commands import run

run("compile_report")
