"""Makes batches of the images of concurrent requests."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mrcnn_jax.images import decode_image
from mrcnn_jax.inference.canvases import Canvases, canvases_of_size, one_size_per_canvas
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.results import Result
from mrcnn_jax.runtime.compilations import watch_compilations
from mrcnn_jax.serving.metrics import Metrics
from mrcnn_jax.serving.uploads import Upload

_WORKERS = 2  # while one batch is on the device, another's images are decoded, or its masks pasted
_FAILURES = 3  # batches in a row, after which the device is taken for broken

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Waiting:
    """An image that waits for its batch."""

    upload: Upload
    canvases: Canvases
    since: float = field(default_factory=time.monotonic)
    result: Future[Result] = field(default_factory=Future)


class Batcher:
    """Detects objects in images that any thread submits, in batches of images that share a canvas.

    Images are taken in the order in which they came. A batch of the largest size starts at once. A smaller
    one starts only ``wait`` seconds after its oldest image came, and when no other batch is computed: until
    then, more images may come.

    Args:
        detectors: equal but for their batch sizes. A batch is computed by the smallest that holds it, and
            takes the time of that size.
        wait: seconds.
        on_failure: called in a thread if the model cannot be compiled; ``failure`` is then the reason.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        metrics: Metrics,
        *,
        wait: float,
        on_failure: Callable[[], None],
    ) -> None:
        self._detectors = sorted(detectors, key=lambda detector: detector.batch_size)
        self._config, self._pixels = detectors[0].config, detectors[0].pixels
        self._largest = self._detectors[-1].batch_size
        self.failure: Exception | None = None
        self.is_ready = False  # whether all canvases are compiled
        self.seconds_per_batch = 1.0  # of the latest one
        self._metrics, self._wait, self._on_failure = metrics, wait, on_failure
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._computing = 0  # batches
        self._failures = 0  # batches in a row
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def is_healthy(self) -> bool:
        """False if the latest batches all failed, for another reason than their images."""
        return self._failures < _FAILURES

    def start(self) -> None:
        """Compiles the model for each canvas, then computes what is submitted, in threads."""
        self._start_thread(self._compile)

    def close(self) -> None:
        """Computes what was submitted, and ends the threads. A compilation that was begun is waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self.is_ready and any(thread.is_alive() for thread in self._threads):
            _LOG.info("ends when the compilation that was begun does")
        for thread in self._threads:  # also those that the first one starts meanwhile
            thread.join()

    def submit(self, upload: Upload) -> Future[Result]:
        """The objects in an image, once they are found; ValueError if it turns out to be damaged, and
        RuntimeError if the whole batch failed, which is in the log.

        Cancelling the future takes the image out of the queue.
        """
        item = _Waiting(upload, canvases_of_size(self._config, upload.size))
        with self._changed:
            self._waiting.append(item)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify_all()
        return item.result

    def _start_thread(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=target.__name__)
        self._threads.append(thread)
        thread.start()

    def _compile(self) -> None:
        pixels, begin = self._pixels, time.monotonic()
        try:
            with watch_compilations(_log_compilation):
                for detector in self._detectors:
                    for height, width in one_size_per_canvas(self._config).values():
                        if self._closed:
                            return
                        detector(np.zeros((height, width, pixels.channels), pixels.dtype))
        except Exception as error:
            self.failure = error
            self._on_failure()
            return
        _LOG.info("ready after %.0f s", time.monotonic() - begin)
        self.is_ready = True
        self._metrics.ready.set(1)
        for _ in range(_WORKERS):
            self._start_thread(self._work)

    def _work(self) -> None:
        while batch := self._take():
            begin = time.monotonic()
            self._compute(batch)
            self.seconds_per_batch = time.monotonic() - begin
            self._metrics.batch_seconds.observe(self.seconds_per_batch)
            self._metrics.batch_images.observe(len(batch))
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    def _take(self) -> list[_Waiting]:
        """The next batch, when it should start; [] when there will be none."""
        with self._changed:
            while True:
                batch = self._oldest_batch()
                if not batch and self._closed:
                    return []
                left = batch[0].since + self._wait - time.monotonic() if batch else 0.0
                is_due = batch and (self._closed or (left <= 0 and not self._computing))
                if is_due or len(batch) == self._largest:
                    self._waiting = [item for item in self._waiting if item not in batch]
                    self._metrics.waiting.set(len(self._waiting))
                    # False for those that were cancelled; from here on they cannot be.
                    if batch := [item for item in batch if item.result.set_running_or_notify_cancel()]:
                        self._computing += 1
                        return batch
                else:
                    self._changed.wait(left if batch and not self._computing else None)

    def _oldest_batch(self) -> list[_Waiting]:
        """The image that waits longest, and those after it that lie on the same canvases."""
        self._waiting = [item for item in self._waiting if not item.result.cancelled()]
        alike = [item for item in self._waiting if item.canvases == self._waiting[0].canvases]
        return alike[: self._largest]

    def _compute(self, batch: list[_Waiting]) -> None:
        detector = next(detector for detector in self._detectors if detector.batch_size >= len(batch))
        sources = [
            partial(decode_image, item.upload.data, self._pixels, name=item.upload.place) for item in batch
        ]
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = list(detector.attempt(sources))
        except Exception:  # of the device: out of memory, or broken
            self._failures += 1
            _LOG.exception("a batch of %d images failed", len(batch))
            outcomes = [RuntimeError("the batch failed") for _ in batch]
        else:
            self._failures = 0
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                item.result.set_exception(outcome)
            else:
                item.result.set_result(outcome)


def _log_compilation(program: str, seconds: float | None) -> None:
    if seconds is None:
        _LOG.info("compiling %s ...", program)
    else:
        _LOG.info("... %.0f s", seconds)
