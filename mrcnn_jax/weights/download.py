"""Downloads weights files once, into ``~/.cache/mrcnn_jax/weights``, and checks them."""

import contextlib
import fcntl
import glob
import hashlib
import http.client
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from mrcnn_jax.weights.zoo_models import Weights

_TIMEOUT = 60  # seconds without a byte
_CHUNK = 2**20  # bytes
UNFINISHED = ".part"  # ends the names of what is in progress
_MIB_ERROR = 0.001  # the published sizes are rounded to three digits


def download(weights: Weights) -> Path:
    """The file of ``weights``, downloaded unless it is there already, with its size and checksum verified.

    A file that was put there by hand is used after the same checks. Several processes may call this at once:
    one downloads, the others wait. A download says so on stderr, with a progress bar in a terminal; what a
    killed process has left of one is removed.

    Raises:
        OSError: the file cannot be downloaded; the message says where to put it by hand.
        ValueError: the file's size or checksum is not the published one. A downloaded file is removed, one
            that was there is left.
    """
    path = cache_path(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as is_alone:
        if path.is_file():
            if problem := _problem(path, weights):
                raise ValueError(f"{path}: {problem}; remove it to have it downloaded again")
            return path
        if is_alone:
            for abandoned in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
                abandoned.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED, delete=False
        ) as file:
            unfinished = Path(file.name)
        try:
            _fetch(weights, unfinished, path)
            if problem := _problem(unfinished, weights):
                raise ValueError(f"{weights.address}: the download is not the published file: {problem}")
            unfinished.chmod(0o644)  # temporary files are readable by their owner only
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def cache_path(weights: Weights) -> Path:
    """Where the file of ``weights`` lies once it is downloaded."""
    return Path.home() / ".cache" / "mrcnn_jax" / "weights" / weights.system / weights.file


def _fetch(weights: Weights, unfinished: Path, path: Path) -> None:
    """Writes the file behind the address to ``unfinished``; raises OSError unless it is complete."""
    # Servers may refuse urllib's own name. Only addresses of the table are opened: https, but in tests.
    request = urllib.request.Request(weights.address, headers={"User-Agent": "mrcnn_jax"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if weights.address.startswith("https:") and not response.geturl().startswith("https:"):
                raise OSError(f"it is redirected to {response.geturl()}, which is not https")
            size = int(response.headers["Content-Length"] or 0)
            mib = f" ({size / 2**20:.0f} MiB)" if size else ""
            print(f"downloading {weights.address}{mib} to {path}", file=sys.stderr, flush=True)
            bar = tqdm(
                desc=path.name,
                total=size or None,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                leave=False,
                disable=None,
            )
            received = 0
            with bar, unfinished.open("wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            if size and received != size:
                raise OSError(f"the connection ended after {received} of {size} bytes")
    except (OSError, http.client.HTTPException) as error:
        reason: object = error
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        elif isinstance(error, urllib.error.URLError):
            reason = error.reason
        raise OSError(
            f"{weights.address}: cannot be downloaded: {reason}\nif you have the file, put it at {path}"
        ) from error


def _problem(path: Path, weights: Weights) -> str | None:
    """What is wrong with the file's size or checksum; None if nothing is."""
    mib = path.stat().st_size / 2**20
    if weights.mib is not None and abs(mib - weights.mib) > _MIB_ERROR:
        return f"its size is {mib:.3f} MiB, must be {weights.mib:.3f} MiB"
    if weights.checksum:
        algorithm, wanted = weights.checksum
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()[: len(wanted)]
        if found != wanted:
            return f"its {algorithm.upper()} begins with {found}, must begin with {wanted}"
    return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Waits until no other process of this machine is in the block for the same path.

    Yields False if the file system has no locks, as some over a network have none: all then download.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"waiting for another process that downloads or converts {path.name}",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True
