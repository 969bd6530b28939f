"""Puts load on a server that was started by mrcnn-jax serve, and reports how long its answers take.

    mrcnn-jax benchmark serve --url=http://127.0.0.1:8000 photo.jpg folder/
    mrcnn-jax benchmark serve --url=http://127.0.0.1:8000 --refused photo.jpg folder/

Each of --clients posts one image after another, for --seconds. An answer of 503, which a full server gives,
is counted, and the image posted again after the time that the answer names. Nothing else may go wrong: a lost
connection, any other status or an answer that is not whole is an error, and the exit code is 1.

--refused adds a client that posts damaged, empty and too large bodies, each of which must get a 4xx.
"""

import http.client
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from absl import flags

ARGUMENTS = "image files and folders of images"

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "the server's address")
_CLIENTS = flags.DEFINE_integer("clients", 8, "clients that post at the same time", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "how long they go on", lower_bound=0)
_REFUSED = flags.DEFINE_bool("refused", False, "another client posts what must be refused")

_TIMEOUT = 300  # seconds without a byte, after which an answer counts as lost


@dataclass
class _Load:
    """What the clients have seen; they are threads, and append and update only."""

    end: float
    seconds: list[float] = field(default_factory=list)  # of answered images
    statuses: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def post_images(self, images: list[bytes], first: int) -> None:
        """Posts images in turn, beginning at an index."""
        number = first
        while time.monotonic() < self.end:
            begin = time.monotonic()
            status, answer, wait = self._request("POST", "/predict", images[number % len(images)])
            with self.lock:
                self.statuses[status] += 1
                if status == 200:
                    self.seconds.append(time.monotonic() - begin)
            if status == 503:
                time.sleep(wait)
                continue
            number += 1
            if status != 200 or len(json.loads(answer)["images"]) != 1:
                self._report(f"an image got {status}: {answer[:200]!r}")

    def post_what_is_refused(self, image: bytes) -> None:
        limit = json.loads(self._request("GET", "/model")[1])["limits"]["bytes"]
        bodies = image[: len(image) // 2], b"not an image", b"", bytes(2 * limit)
        while time.monotonic() < self.end:
            for body in bodies:
                status, answer, _ = self._request("POST", "/predict", body)
                with self.lock:
                    self.refused[status] += 1
                if not 400 <= status < 500 and status != 503:
                    self._report(f"{len(body)} bytes that are no image got {status}: {answer[:200]!r}")
            time.sleep(0.2)

    def _request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, float]:
        """The status, the answer and the seconds to wait after a 503; status 0 if the answer is lost."""
        try:
            connection = http.client.HTTPConnection(urlsplit(_URL.value).netloc, timeout=_TIMEOUT)
            connection.request(method, path, body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            answer, wait = response.read(), float(response.headers.get("Retry-After", 1))
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode(), 1.0
        return response.status, answer, wait

    def _report(self, problem: str) -> None:
        with self.lock:
            self.problems.append(problem)


def main(arguments: list[str]) -> int:
    from mrcnn_jax.image_formats import suffixes
    from mrcnn_jax.inference.files import find_images

    paths, errors = find_images(arguments, suffixes())
    if errors:
        raise errors[0]
    if not paths:
        raise ValueError("no images given: name image files or folders")
    images = [path.read_bytes() for path in paths]
    begin = time.monotonic()
    load = _Load(end=begin + _SECONDS.value)
    threads = [
        threading.Thread(target=load.post_images, args=(images, first * len(images) // _CLIENTS.value))
        for first in range(_CLIENTS.value)
    ]
    if _REFUSED.value:
        threads.append(threading.Thread(target=load.post_what_is_refused, args=(images[0],)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin
    print(f"{_CLIENTS.value} clients, {elapsed:.0f} s, {len(images)} images")
    print(f"answers by status: {_counts(load.statuses)}")
    if _REFUSED.value:
        print(f"refused uploads by status: {_counts(load.refused)}")
    if load.seconds:
        p50, p99 = 1000 * np.percentile(load.seconds, [50, 99])
        print(f"{len(load.seconds) / elapsed:.1f} images/s; p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    for problem in load.problems[:10]:
        print(f"error: {problem}", file=sys.stderr)
    print(f"lost or wrong: {len(load.problems)}")
    return 1 if load.problems else 0


def _counts(statuses: Counter[int]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())) or "none"
