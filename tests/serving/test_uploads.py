"""Bodies that come slowly, or not to their end."""

import asyncio
from dataclasses import replace

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mrcnn_jax.serving.uploads import drop_rest, read_uploads
from tests.serving.conftest import LIMITS


def request(messages, headers=()):
    """A request whose body comes in these messages, and then in none."""
    left = iter(messages)

    async def receive():
        message = next(left, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    scope = {"type": "http", "method": "POST", "headers": list(headers)}
    return Request(scope, receive), left


PART = {"type": "http.request", "body": bytes(1000), "more_body": True}
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("messages", "status", "message"),
    [([PART], 408, "within 0.05 seconds"), ([PART, GONE], 400, "closed the connection before the end")],
)
def test_a_body_that_does_not_end(messages, status, message):
    slow, _ = request(messages)
    with pytest.raises(HTTPException, match=message) as raised:
        asyncio.run(read_uploads(slow, replace(LIMITS, seconds=0.05)))
    assert raised.value.status_code == status


def test_the_rest_of_a_refused_body_is_read_but_not_without_end():
    small, left = request([PART, GONE, PART])
    asyncio.run(drop_rest(small, LIMITS))
    assert list(left) == [PART]
    endless, left = request([PART] * 20)
    asyncio.run(drop_rest(endless, replace(LIMITS, bytes=2000)))
    assert len(list(left)) == 20 - 9


def test_a_client_that_waits_for_leave_to_send_is_not_kept():
    waiting, left = request([PART], [(b"expect", b"100-continue")])
    asyncio.run(drop_rest(waiting, LIMITS))
    assert list(left) == [PART]
