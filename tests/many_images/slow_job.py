"""The driver of a job on a local Ray cluster with two actors, whose finder is slow; run by test_ray_cluster.

    python -m tests.many_images.slow_job IMAGES OUTPUT [kill]

With "kill", it kills the actor that is the first to finish a shard. Prints a worker for each shard.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mrcnn_jax.many_images.ray_cluster import Resources, connect, run_shards
from tests.many_images.conftest import BrightnessFinder, begin


class SlowFinder(BrightnessFinder):
    """Takes a twentieth of a second for an image."""

    def attempt(self, sources, **options):
        for outcome in super().attempt(sources, **options):
            time.sleep(0.05)
            yield outcome


def main(images: str, output: str, *rest: str) -> None:
    resources = Resources(actors=2, cpus=1, gpus=0)
    job = begin(Path(output), Path(images), actors=2)
    connect(None, resources)
    kill = "kill" in rest
    for result in run_shards(
        job, job.unfinished(), SlowFinder, resources, score_threshold=0.0, max_pixels=1000
    ):
        print("worker", result["worker"], flush=True)
        if kill:
            os.kill(int(result["worker"].rpartition(":")[2]), signal.SIGKILL)
            kill = False


if __name__ == "__main__":
    main(*sys.argv[1:])
