import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from mrcnn_jax.many_images import fetch as module
from mrcnn_jax.many_images.fetch import fetch


class Handler(BaseHTTPRequestHandler):
    """Answers by the path; ``/busy`` answers 503 the first time."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        status, body, length = 200, b"content", None
        if self.path == "/missing.png":
            status = 404
        elif self.path == "/down.png" or (self.path == "/busy.png" and self.seen.count(self.path) == 1):
            status = 503
        elif self.path == "/short.png":
            length = 100
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(module, "_WAITS", (0, 0))


def test_paths_and_file_uris(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"here")
    for name in ("a b.png", str(tmp_path / "a b.png"), f"file://{tmp_path}/a%20b.png", "./a b.png"):
        assert fetch(name, tmp_path) == b"here"
    with pytest.raises(ValueError, match=r"missing.png: cannot be read: No such file"):
        fetch("missing.png", tmp_path)


def test_http(server, tmp_path):
    get = partial(fetch, base=tmp_path)
    assert get(f"{server}/x.png") == get(f"{server}/ä b.png?size=1") == b"content"
    assert Handler.seen[-1] == "/%C3%A4%20b.png?size=1"
    assert get(f"{server}/busy.png") == b"content" and Handler.seen.count("/busy.png") == 2
    for name, message, tries in (
        ("missing.png", "the server answered 404 Not Found", 1),
        ("down.png", "the server answered 503 Service Unavailable", 3),
        ("short.png", "the connection ended 93 bytes before the end", 3),
    ):
        with pytest.raises(ValueError, match=f"http://.*/{name}: cannot be read: {message}"):
            get(f"{server}/{name}")
        assert Handler.seen.count(f"/{name}") == tries


def test_a_file_that_is_too_large_is_read_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 3)
    with pytest.raises(
        ValueError, match=r"large.png: cannot be read: it has more than 3 bytes, more than any"
    ):
        fetch(f"{server}/large.png", tmp_path)
    assert Handler.seen.count("/large.png") == 1


def test_what_cannot_be_reached(tmp_path):
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/a.png: cannot be read: .*refused"):
        fetch("http://127.0.0.1:9/a.png", tmp_path)
    with pytest.raises(ValueError, match=r"nonsense://a/b.png: cannot be read: .*nonsense"):
        fetch("nonsense://a/b.png", tmp_path)


def test_other_addresses_are_read_by_fsspec(tmp_path):
    import fsspec

    fsspec.filesystem("memory").pipe("/photos/a.png", b"remembered")
    assert fetch("memory://photos/a.png", tmp_path) == b"remembered"
