#!/usr/bin/env python3
"""Trains a config in a run directory, or goes on with the run that is there.

scripts/train.py --config=configs/shapes.py --workdir=runs/shapes --config.train.steps=500
"""

from pathlib import Path

from absl import flags

from mrcnn_jax import command_line

_config = command_line.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the run: config, checkpoints, logs", required=True
)


def main(_: list[str]) -> None:
    config = _config()
    command_line.setup_jax()
    print("starting TensorFlow (for tf.data) and JAX ...", flush=True)
    from mrcnn_jax.training.loop import train

    train(config, Path(_WORKDIR.value))


if __name__ == "__main__":
    command_line.run(main)
