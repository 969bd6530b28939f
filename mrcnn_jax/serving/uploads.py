"""The images in a request, read within limits; of each, only the header is decoded.

Nothing that a client sends is used as a path. A file's name is returned to its client, and no more.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mrcnn_jax.data.findings import printable
from mrcnn_jax.image_size import header_size
from mrcnn_jax.images import Size

_MOST_FIELDS = 16  # of a form besides its files; any is an error, which names it
_LONGEST_NAME = 200  # characters of a file's name that are kept
# Bytes of a body that are read and dropped after it was refused, in multiples of the limit: a client that is
# still sending would otherwise find the connection broken and never see the reason.
_DROPPED = 4


@dataclass(frozen=True)
class Limits:
    """What a request may carry, and how many images the server holds."""

    bytes: int = 32 * 2**20  # of a request's body
    pixels: int = 64_000_000  # of an image
    images: int = 16  # of a request
    images_at_once: int = 64  # of all requests that are being read, wait or are computed
    seconds: float = 30.0  # within which a body must arrive


@dataclass(frozen=True)
class Upload:
    """An image file that was posted."""

    name: str  # the file's name on the client's side, printable; "" if it was not given
    place: str  # what messages call it
    data: bytes
    size: Size  # height and width, upright (see header_size)


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request: the body itself, or the files of a form (multipart/form-data).

    Raises HTTPException with a 4xx status and the rule that was broken: 400 for an empty or malformed body,
    408 for a slow one, 413 for too many bytes or pixels, 415 for another content type, and 422 for what is no
    image. The pixels that follow an intact header may yet turn out to be damaged.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            files = await _read_files(request, limits)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {limits.seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client closed the connection before the end of the body") from error
    return await run_in_threadpool(_check_images, files, limits)


async def drop_rest(request: Request, limits: Limits) -> None:
    """Reads what the client still sends of a body that was refused, within bounds, and keeps none of it."""
    if "expect" in request.headers:  # the client waits for "100 Continue" before it sends the body
        return
    dropped = 0
    with contextlib.suppress(
        ClientDisconnect, TimeoutError, RuntimeError
    ):  # the last: it was read to its end
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                dropped += len(chunk)
                if dropped > _DROPPED * limits.bytes:
                    return


async def _read_files(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """The names and contents of the files in a request."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"Content-Encoding is {encoding!r}; images are sent as they are")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _limited(request, limits.bytes)
    if content_type == "multipart/form-data":
        return await _read_form(request, body, limits)
    if content_type.startswith("image/") or content_type in ("application/octet-stream", ""):
        return [("", b"".join([chunk async for chunk in body]))]
    hint = ""
    if content_type == "application/x-www-form-urlencoded":
        hint = "; with curl, use -F image=@photo.jpg, or --data-binary with -H 'Content-Type: image/jpeg'"
    raise HTTPException(
        415,
        f"Content-Type is {content_type!r}; must be image/*, application/octet-stream or multipart/form-data"
        f"{hint}",
    )


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body; raises HTTPException before it exceeds ``limit`` bytes."""
    total, announced = 0, int(request.headers.get("content-length", 0))
    chunks = request.stream()
    while max(total, announced) <= limit:
        chunk = await anext(chunks, None)
        if chunk is None:
            return
        total += len(chunk)
        if total <= limit:
            yield chunk
    raise HTTPException(413, f"the body has more than {limit} bytes, which is the most for one request")


async def _read_form(
    request: Request, body: AsyncGenerator[bytes, None], limits: Limits
) -> list[tuple[str, bytes]]:
    parser = MultiPartParser(request.headers, body, max_files=limits.images, max_fields=_MOST_FIELDS)
    parser.spool_max_size = limits.bytes + 1  # never to a disk, which may be read-only
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    try:
        if fields := [field for field, value in form.multi_items() if isinstance(value, str)]:
            raise HTTPException(
                400,
                f"the form's field {fields[0][:_LONGEST_NAME]!r} has no file; settings go into the address, "
                "as in /predict?score_threshold=0.5",
            )
        files = [value for _, value in form.multi_items() if not isinstance(value, str)]
        if not files:
            raise HTTPException(400, "the form has no files; send an image, as in: curl -F image=@photo.jpg")
        return [(printable((file.filename or "")[:_LONGEST_NAME]), await file.read()) for file in files]
    finally:
        await form.close()


def _check_images(files: list[tuple[str, bytes]], limits: Limits) -> list[Upload]:
    """The files as uploads; raises HTTPException that names all that are none, by the first one's status."""
    uploads, problems = [], []
    for number, (name, data) in enumerate(files, start=1):
        alone = len(files) == 1 and not name
        place = "the image" if alone else f"image {number} ({name})" if name else f"image {number}"
        if not data:
            problems.append(
                (400, "the body is empty; send an image" if alone else f"{place}: the file is empty")
            )
            continue
        try:
            size = header_size(data, name=place)
        except ValueError as error:
            problems.append((422, str(error)))
            continue
        if size[0] * size[1] > limits.pixels:
            problem = f"{place} has {size[1]} x {size[0]} pixels; must have at most {limits.pixels}"
            problems.append((413, problem))
        uploads.append(Upload(name, place, data, size))
    if problems:
        raise HTTPException(problems[0][0], "; ".join(problem for _, problem in problems))
    return uploads
