"""The routes of the server.

    POST /predict   images in; JSON or a picture out
    GET  /model     the model's name and categories, and the limits
    GET  /          a page to try the model in a browser
    GET  /health    200 while the process works; for a liveness probe
    GET  /ready     200 once the model is compiled; for a readiness probe
    GET  /metrics   for Prometheus

Every error is JSON, {"error": "the rule"}, and says nothing of the server's insides.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.results import Result
from mrcnn_jax.json_files import dumps
from mrcnn_jax.serving.answers import describe_model, describe_results, drawn
from mrcnn_jax.serving.batcher import Batcher
from mrcnn_jax.serving.metrics import Metrics
from mrcnn_jax.serving.page import page
from mrcnn_jax.serving.record import Record
from mrcnn_jax.serving.uploads import Limits, drop_rest, read_uploads

_PARAMETERS = "score_threshold", "format"
_FAILED = "the server failed; its log says why"
_FORMATS = {"json": "application/json", "png": "image/png"}


class Server:
    """The endpoints, and the state that they share; all are called in one thread.

    Args:
        detectors: from ``mrcnn_jax.load``, for batches of several sizes (see ``Batcher``).
        name: what the page calls the model.
        score_threshold: of the objects in an answer, unless the request has its own.
        wait: seconds that an image waits for others to fill its batch.
        on_failure: called if the model cannot be compiled; ``batcher.failure`` is then the reason.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        *,
        name: str,
        limits: Limits,
        score_threshold: float,
        wait: float,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.metrics = Metrics()
        self.batcher = Batcher(detectors, self.metrics, wait=wait, on_failure=on_failure)
        self._limits, self._score_threshold = limits, score_threshold
        self._model = describe_model(detectors[0], name, limits, score_threshold)
        self._images = 0  # that are being read, wait or are computed
        routes = [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/model", self._describe),
            Route("/", page),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
        ]
        paths = frozenset(route.path for route in routes)
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[Middleware(Record, metrics=self.metrics, paths=paths)],
            exception_handlers={HTTPException: _refuse, Exception: _fail},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        try:
            yield
        finally:
            await run_in_threadpool(self.batcher.close)

    async def _predict(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except HTTPException:
            await drop_rest(request, self._limits)
            raise

    async def _answer(self, request: Request) -> Response:
        if not self.batcher.is_ready:
            raise HTTPException(503, "the model is being compiled", {"Retry-After": "5"})
        threshold = _score_threshold(request.query_params, self._score_threshold)
        media_type = _media_type(request)
        with self._admitted(1):
            uploads = await read_uploads(request, self._limits)
            if media_type == _FORMATS["png"] and len(uploads) > 1:
                raise HTTPException(400, f"a picture is of one image, but there are {len(uploads)}")
            with self._admitted(len(uploads) - 1):
                found = await _all_results(request, [self.batcher.submit(upload) for upload in uploads])
            results = [result.above(threshold) for result in found]
            self.metrics.images.inc(len(results))
            self.metrics.objects.inc(objects := sum(map(len, results)))
            request.state.note = f"{_counted(len(results), 'image')}, {_counted(objects, 'object')}"
            if media_type == _FORMATS["png"]:
                return Response(await run_in_threadpool(drawn, results[0], uploads[0]), media_type=media_type)
            images = await run_in_threadpool(describe_results, results, uploads)
            return _json({"score_threshold": threshold, "images": images})

    @contextlib.contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        """The context with ``count`` more images in the server; raises HTTPException if it is full."""
        if self._images + count > self._limits.images_at_once:
            seconds = max(1, math.ceil(self.batcher.seconds_per_batch))
            raise HTTPException(
                503,
                f"the server has {self._images} images at present and takes at most "
                f"{self._limits.images_at_once}; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        self._images += count
        try:
            yield
        finally:
            self._images -= count

    async def _describe(self, _: Request) -> Response:
        return _json(self._model)

    async def _health(self, _: Request) -> Response:
        if self.batcher.is_healthy:
            return _json({"status": "ok"})
        return _json({"status": "the latest batches failed"}, 503)

    async def _ready(self, _: Request) -> Response:
        if self.batcher.is_ready:
            return _json({"status": "ok"})
        return _json({"status": "the model is being compiled"}, 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _all_results(request: Request, futures: list[Future[Result]]) -> list[Result]:
    """The results; raises HTTPException that names all damaged images, and if the client has gone.

    What a client no longer waits for is taken out of the queue.
    """
    waiting = [asyncio.wrap_future(future) for future in futures]
    all_done = asyncio.create_task(asyncio.wait(waiting))
    gone = asyncio.create_task(_until_disconnected(request))
    try:
        await asyncio.wait([all_done, gone], return_when=asyncio.FIRST_COMPLETED)
        if not all_done.done():
            raise HTTPException(499, "the client closed the connection")
    finally:
        gone.cancel()
        all_done.cancel()
        for future in waiting:
            future.cancel()
    errors = [error for future in waiting if (error := future.exception())]
    if not all(isinstance(error, ValueError) for error in errors):  # the batcher has logged it
        raise HTTPException(500, _FAILED)
    if errors:
        raise HTTPException(422, "; ".join(map(str, errors)))
    return [future.result() for future in waiting]


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _score_threshold(query: QueryParams, default: float) -> float:
    """The request's threshold; raises HTTPException for a malformed one, and for unknown parameters."""
    if unknown := [name for name in query if name not in _PARAMETERS]:
        raise HTTPException(400, f"unknown parameter {unknown[0]!r}; there are {', '.join(_PARAMETERS)}")
    text = query.get("score_threshold", str(default))
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise HTTPException(400, f"score_threshold is {text!r}; must be a number from 0 to 1")
    return threshold


def _media_type(request: Request) -> str:
    """What the answer should be: the query decides, otherwise a picture if Accept names it, and no JSON."""
    text = request.query_params.get("format")
    if text is None:
        accepted = request.headers.get("accept", "").lower()
        is_picture = _FORMATS["png"] in accepted and _FORMATS["json"] not in accepted
        return _FORMATS["png" if is_picture else "json"]
    if text not in _FORMATS:
        raise HTTPException(400, f"format is {text!r}; must be {' or '.join(_FORMATS)}")
    return _FORMATS[text]


async def _refuse(request: Request, error: Any) -> Response:
    request.state.note = error.detail
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _fail(_: Request, __: Exception) -> Response:
    return _json({"error": _FAILED}, 500)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dumps(content), status, headers, media_type=_FORMATS["json"])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
