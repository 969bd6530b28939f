"""Counts and logs each request, and adds the headers that all answers have."""

import logging
import time
from collections.abc import MutableMapping, Set
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from mrcnn_jax.data.findings import printable
from mrcnn_jax.serving.metrics import Metrics

_LOG = logging.getLogger(__name__)
_PROBES = "/health", "/ready", "/metrics"  # asked every few seconds
_LONGEST = 300  # characters of a line that a client decides


class Record:
    """An ASGI middleware: a line in the log for each answer from /predict, and each error but a probe's.

    Args:
        paths: those that are counted by name; strangers try many others.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Set[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.monotonic(), 500

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._record(scope, status, time.monotonic() - begin)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, status).inc()
        is_prediction = path == "/predict"
        if is_prediction and status == 200:
            self._metrics.request_seconds.observe(seconds)
        if path in _PROBES or (status < 400 and not is_prediction):
            return
        client = scope["client"][0] if scope.get("client") else "?"
        note = scope.get("state", {}).get("note", "")
        line = f"{client} {scope['method']} {scope['path']} {status} {1000 * seconds:.0f} ms {note}"
        _LOG.log(logging.INFO if status < 500 else logging.WARNING, "%s", printable(line[:_LONGEST]).rstrip())
