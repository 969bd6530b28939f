"""Compiles the programs of all canvases ahead of time, into JAX's persistent cache."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from mrcnn_jax.compile_report.programs import Canvas, lower_predict, lower_step
from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import make_mesh


def fill_cache(config: Config, work: str, *, categories: int) -> Iterator[tuple[str, float]]:
    """Compiles "train" or "predict" for every canvas; yields what was compiled, and in how many seconds.

    Canvases are compiled at once, in as many threads as there are cores: XLA uses few of them for one
    program. The cache's directory must have been set (``runtime.setup``).
    """
    mesh = make_mesh()
    lower = lower_step if work == "train" else lower_predict

    def compile_canvas(canvas: Canvas) -> tuple[str, float]:
        start = time.perf_counter()
        lower(config, mesh, canvas, categories=categories).compile()
        return f"{work}, canvas {canvas[0]} x {canvas[1]}", time.perf_counter() - start

    with ThreadPoolExecutor(min(len(config.data.canvases), os.cpu_count() or 1)) as threads:
        futures = [threads.submit(compile_canvas, canvas) for canvas in config.data.canvases]
        for future in as_completed(futures):
            yield future.result()
