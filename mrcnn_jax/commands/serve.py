"""Serves a model over HTTP: images in, objects out as JSON or pictures, and a page to try it in a browser.

    mrcnn-jax serve --workdir=runs/shapes
    curl -F image=@photo.jpg http://127.0.0.1:8000/predict

It answers this machine only, unless --host=0.0.0.0, and has no passwords and no TLS: put a proxy before it.
Images of concurrent requests share batches. SIGTERM and Ctrl-C end it once the requests at hand are answered.
Needs the extra [serve]; see docs/serving.md.
"""

import logging
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import find_model, model_config

_NEEDED = "starlette", "uvicorn", "python_multipart", "prometheus_client"
_KEEP_ALIVE = 75  # seconds; longer than proxies keep idle connections, or they would send into a closed one

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory of the trained run, a published model's name (docs/zoo.md), or a file that mrcnn-jax export "
    "wrote (docs/deployment.md), with programs for --batch_sizes",
    required=True,
)
_STEP = command_line.define_step()
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0 for all of this machine's")
_PORT = flags.DEFINE_integer("port", 8000, "port to listen at", lower_bound=0, upper_bound=65535)
_batch_sizes = command_line.define_batch_sizes(
    "images per batch, such as 1,8: a batch is computed at the smallest size that holds it. An accelerator "
    "computes several images in little more time than one, a CPU does not"
)
_WAIT = flags.DEFINE_float(
    "batch_wait", 5.0, "milliseconds that an image waits for others to fill its batch", lower_bound=0
)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    0.5,
    "answer with objects of at least this score, unless a request has ?score_threshold=...",
    lower_bound=0,
    upper_bound=1,
)
_MAX_BYTES = flags.DEFINE_integer("max_bytes", 32 * 2**20, "the most bytes of a request", lower_bound=1)
_MAX_PIXELS = flags.DEFINE_integer("max_pixels", 64_000_000, "the most pixels of an image", lower_bound=1)
_MAX_IMAGES = flags.DEFINE_integer("max_images", 16, "the most images of a request", lower_bound=1)
_QUEUE_SIZE = flags.DEFINE_integer(
    "queue_size", 64, "the most images in the server at once; more are refused with status 503", lower_bound=1
)


def main(_: list[str]) -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ValueError(
            f"mrcnn-jax serve needs {' and '.join(missing)}: pip install 'mrcnn_jax[serve]', or in a clone "
            "pip install -e '.[serve]'"
        )
    if _MAX_IMAGES.value > _QUEUE_SIZE.value:
        raise ValueError(
            f"--max_images={_MAX_IMAGES.value} must be at most --queue_size={_QUEUE_SIZE.value}: a request "
            "with as many would never be taken"
        )
    batch_sizes = _batch_sizes()
    config = _override(model_config(_WORKDIR.value))
    family = socket.AF_INET6 if ":" in _HOST.value else socket.AF_INET
    with socket.create_server((_HOST.value, _PORT.value), family=family) as listener:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        setup()
        _serve(listener, config, batch_sizes)


def _serve(listener: socket.socket, config: Config, batch_sizes: list[int]) -> None:
    import uvicorn

    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.serving.app import Server
    from mrcnn_jax.serving.uploads import Limits
    from mrcnn_jax.weights.zoo import workdir_of

    _log_to_stderr("mrcnn_jax.serving", logging.INFO)
    _log_to_stderr("uvicorn.error", logging.WARNING)
    workdir = workdir_of(_WORKDIR.value)
    detectors = [load(workdir, step=_STEP.value, batch_size=size, config=config) for size in batch_sizes]

    def stop() -> None:
        server.should_exit = True

    endpoints = Server(
        detectors,
        name=_WORKDIR.value if find_model(_WORKDIR.value) else Path(_WORKDIR.value).resolve().name,
        limits=Limits(
            bytes=_MAX_BYTES.value,
            pixels=_MAX_PIXELS.value,
            images=_MAX_IMAGES.value,
            images_at_once=_QUEUE_SIZE.value,
        ),
        score_threshold=_SCORE_THRESHOLD.value,
        wait=_WAIT.value / 1000,
        on_failure=stop,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            endpoints.app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
    )
    host, port = listener.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    print(f"step {detectors[0].step} of {_WORKDIR.value} at http://{where}:{port}", flush=True)
    server.run(sockets=[listener])
    if endpoints.batcher.failure is not None:
        raise endpoints.batcher.failure


def _log_to_stderr(name: str, level: int) -> None:
    """Writes a logger's lines to stderr, apart from absl's, which leaves out all but errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
