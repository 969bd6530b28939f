"""Downloads from a server on this machine."""

import dataclasses
import errno
import fcntl
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from mrcnn_jax.weights.download import cache_path, download
from mrcnn_jax.weights.zoo_models import Weights

CONTENT = bytes(range(256)) * 2**13  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at every path but /missing and /elsewhere; /short ends early."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.agents: set[str | None] = set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.agents.add(self.headers["User-Agent"])
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith("/unknown-length"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path.startswith("/short") else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def weights_at(address: str, file: str = f"model-{SHA256[:8]}.pth", mib: float | None = 2.0) -> Weights:
    return Weights("torchvision/model", f"{address}/{file}", mib)


def stored(home: Path) -> list[str]:
    return sorted(path.name for path in (home / ".cache/mrcnn_jax/weights").rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", ["", "/unknown-length"])
@pytest.mark.parametrize("file", [f"model-{SHA256[:8]}.pth", f"model_final_{MD5[:6]}.pkl", "no_checksum.pkl"])
def test_a_file_is_downloaded_once(
    server: Server, home: Path, folder: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_at(server.address + folder, file)
    path = download(weights)
    size = "" if folder else " (2 MiB)"
    assert capsys.readouterr() == ("", f"downloading {weights.address}{size} to {path}\n")
    assert path == home / ".cache/mrcnn_jax/weights/torchvision" / file
    assert path.read_bytes() == CONTENT and path.stat().st_mode & 0o777 == 0o644
    assert download(weights) == path
    assert server.requests == [f"{folder}/{file}"]
    assert stored(home) == [f".{file}.lock", file]
    assert capsys.readouterr() == ("", "")
    assert server.agents == {"mrcnn_jax"}


@pytest.mark.parametrize(
    ("file", "mib", "message"),
    [
        ("model-00000000.pth", 2.0, f"its SHA256 begins with {SHA256[:8]}, must begin with 00000000"),
        ("model_final_000000.pkl", None, f"its MD5 begins with {MD5[:6]}, must begin with 000000"),
        (f"model-{SHA256[:8]}.pth", 2.002, r"its size is 2\.000 MiB, must be 2\.002 MiB"),
    ],
)
def test_a_download_that_is_not_the_published_file(
    server: Server, home: Path, file: str, mib: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"{file}: the download is not the published file: {message}"):
        download(weights_at(server.address, file, mib))
    assert stored(home) == [f".{file}.lock"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("/short", "the connection ended after 1000 of 2097152 bytes"),
        ("/missing", "HTTP Error 404: Not Found"),
    ],
)
def test_a_download_that_fails(server: Server, home: Path, folder: str, message: str) -> None:
    weights = weights_at(server.address + folder)
    with pytest.raises(OSError) as error:
        download(weights)
    assert str(error.value).splitlines() == [
        f"{weights.address}: cannot be downloaded: {message}",
        f"if you have the file, put it at {cache_path(weights)}",
    ]
    assert stored(home) == [f".{weights.file}.lock"]


def test_no_server() -> None:
    with pytest.raises(OSError, match=r"\.pth: cannot be downloaded: .*Connection refused\nif you have"):
        download(weights_at("http://127.0.0.1:1"))


def test_a_file_that_was_put_there_by_hand(server: Server, home: Path) -> None:
    weights = weights_at(server.address)
    path = cache_path(weights)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert download(weights) == path
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"\.pth: its SHA256 begins with .*; remove it to have it downloaded"
    ):
        download(weights)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"its size is 0\.000 MiB, must be 2\.000 MiB; remove it"):
        download(weights)
    assert path.read_bytes() == b"<html>" and not server.requests


def test_processes_that_want_the_same_file(server: Server, home: Path) -> None:
    weights = weights_at(server.address)
    code = f"""
from mrcnn_jax.weights.download import download
from mrcnn_jax.weights.zoo_models import Weights
print(download(Weights(**{dataclasses.asdict(weights)!r})))
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    paths = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert paths == {str(cache_path(weights))} and len(server.requests) == 1
    assert cache_path(weights).read_bytes() == CONTENT
    assert stored(home) == [f".{weights.file}.lock", weights.file]


def test_what_a_killed_process_left_is_removed(server: Server, home: Path) -> None:
    weights = weights_at(server.address)
    folder = cache_path(weights).parent
    folder.mkdir(parents=True)
    (folder / f".{weights.file}.k1ll3d.part").write_bytes(CONTENT[:-1])
    (folder / ".another.pth.k1ll3d.part").write_bytes(CONTENT)
    download(weights)
    assert stored(home) == [".another.pth.k1ll3d.part", f".{weights.file}.lock", weights.file]


def test_waiting_for_another_process_is_said(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_at(server.address)
    lock = cache_path(weights).with_name(f".{weights.file}.lock")
    lock.parent.mkdir(parents=True)
    flock, waits = fcntl.flock, threading.Event()

    def observed(file: IO[str], operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            waits.set()
        flock(file, operation)

    with lock.open("w") as held:
        flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", observed)
        waiting = threading.Thread(target=download, args=[weights])
        waiting.start()
        assert waits.wait(timeout=60)
        message = capsys.readouterr().err
        assert message == f"waiting for another process that downloads or converts {weights.file}\n"
        assert not server.requests
    waiting.join()
    assert cache_path(weights).read_bytes() == CONTENT


def test_without_locks_other_downloads_are_left_alone(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    weights = weights_at(server.address)
    cache_path(weights).parent.mkdir(parents=True)
    others = cache_path(weights).with_name(f".{weights.file}.another.part")
    others.write_bytes(b"in progress")
    assert download(weights).read_bytes() == CONTENT
    assert others.read_bytes() == b"in progress"
