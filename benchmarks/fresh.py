"""Training steps in a fresh process: the time until the first one is done, and the memory of the second.

    python -m mrcnn_jax.benchmarks.fresh CACHE < request.json

CACHE is the directory of the compilation cache. The request, made by ``choose_objects`` or ``measure``, holds
the config, the batch size or the objects, and the time at which the process was started.
"""

import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mrcnn_jax.config import Config, to_dict


def choose_objects(config: Config, batch_size: int, cache: Path) -> list[Any]:
    """Objects to train on, from ``models.choose_objects``."""
    return _ask(config, cache, batch_size=batch_size)


def measure(config: Config, objects: list[Any], cache: Path) -> dict[str, float]:
    """``seconds`` from the start of the process to the end of its first step, and peak ``bytes`` in use."""
    return _ask(config, cache, objects=objects)


def _ask(config: Config, cache: Path, **request: Any) -> Any:
    request |= {"config": to_dict(config), "started": time.time()}
    command = [sys.executable, "-m", "mrcnn_jax.benchmarks.fresh", str(cache)]
    done = subprocess.run(command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    from mrcnn_jax.runtime.setup import setup

    setup(keep_memory=False)

    import jax
    import numpy as np

    from mrcnn_jax.benchmarks.workloads import models
    from mrcnn_jax.config.io import from_dict

    jax.config.update("jax_compilation_cache_dir", sys.argv[1])
    request = json.load(sys.stdin)
    config = from_dict(request["config"])
    model = models.make_model(config, choose_threshold=False)
    if "batch_size" in request:
        print(json.dumps(models.choose_objects(model, request["batch_size"]).tolist()))
        return
    run = models.train("first step", model, np.array(request["objects"], np.float32)).run
    run()
    seconds = time.time() - request["started"]
    print(json.dumps({"seconds": seconds, "bytes": _peak_bytes(run)}))


def _peak_bytes(run: Any) -> int:
    """The peak memory in use during ``run``: the accelerator's, or else the whole process's."""
    import jax

    (device,) = jax.devices()[:1]
    if device.platform != "cpu":
        run()
        if not (stats := device.memory_stats()):
            raise ValueError(f"train_memory: {device.platform} does not report how much memory is in use")
        return stats["peak_bytes_in_use"]
    with contextlib.suppress(OSError):  # only Linux can reset the peak
        Path("/proc/self/clear_refs").write_text("5")
        run()
        (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
