#!/usr/bin/env python3
"""Trains a config in a run directory, or resumes the run in it.

    scripts/train.py --config=configs/shapes.py --workdir=runs/shapes --config.train.steps=500

Started once on each host, the processes train one model together (see docs/multi_host.md). On TPU pods and
with SLURM or Open MPI this command is enough; elsewhere add --coordinator, --num_processes and --process_id.
SIGTERM to any of them makes all save after the current step and exit with code 143.
"""

import signal
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup_jax

_config = command_line.define_config()
_hosts = command_line.define_hosts(handle_sigterm=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the run: config, checkpoints, logs", required=True
)


def main(_: list[str]) -> int:
    config = _config()
    setup_jax(keep_memory=False)
    print("starting TensorFlow (for tf.data) and JAX ...", flush=True)
    from mrcnn_jax.training.loop import train

    with _hosts():
        finished = train(config, Path(_WORKDIR.value))
    return 0 if finished else 128 + signal.SIGTERM


if __name__ == "__main__":
    command_line.run(main)
