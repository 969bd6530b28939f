"""Fetches the bytes of image files by path or URI: http(s) by urllib, stores by pyarrow, others by fsspec."""

import functools
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from pyarrow import fs

from mrcnn_jax.images import read_file

_TIMEOUT = 60  # seconds without a byte
_WAITS = (1, 5)  # seconds before trying again; object stores' own clients try again by themselves
_LARGEST = 2**31  # bytes, as of files
_STORES = ("s3", "gs", "gcs")  # that pyarrow reads by itself
_PASSING = (408, 429, 500, 502, 503, 504)  # statuses that another try may not get


def fetch(name: str, base: Path) -> bytes:
    """The bytes of the file that a path, relative to the folder ``base``, or a URI names.

    Raises ValueError, naming it and the reason, if it cannot be read.
    """
    scheme, separator, rest = name.partition("://")
    if not separator:
        return read_file(base / name)
    scheme = scheme.lower()
    if scheme == "file":
        return read_file(urllib.request.url2pathname(urllib.parse.urlsplit(name).path))
    try:
        if scheme in ("http", "https"):
            return _fetch_http(name)
        return _fetch_from_store(scheme, rest, name)
    except ImportError as error:
        raise ValueError(f"{name}: cannot be read: {scheme}:// needs another package: {error}") from error
    except Exception as error:  # of many libraries
        raise ValueError(f"{name}: cannot be read: {_reason(error)}") from error


def _fetch_http(uri: str) -> bytes:
    address = urllib.parse.quote(uri, safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters beyond ASCII
    # Servers may refuse urllib's own name.
    request = urllib.request.Request(address, headers={"User-Agent": "mrcnn_jax"})
    for wait in (*_WAITS, None):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                data = response.read(_LARGEST + 1)
                if response.length and len(data) <= _LARGEST:  # what is missing
                    raise OSError(f"the connection ended {response.length} bytes before the end")
            return _limited(data)
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code not in _PASSING or wait is None:
                raise
        except (OSError, http.client.HTTPException):
            if wait is None:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _fetch_from_store(scheme: str, rest: str, uri: str) -> bytes:
    if scheme in _STORES:
        bucket = rest.partition("/")[0]
        with _store(scheme, bucket).open_input_stream(rest) as file:
            return _limited(file.read(_LARGEST + 1))
    import fsspec

    with fsspec.open(uri, "rb") as file:
        return _limited(file.read(_LARGEST + 1))


@functools.lru_cache(maxsize=64)
def _store(scheme: str, bucket: str) -> Any:
    """The file system of a bucket; making one takes a request to find its region."""
    filesystem, _ = fs.FileSystem.from_uri(f"{'gs' if scheme == 'gcs' else scheme}://{bucket}")
    return filesystem


def _limited(data: bytes) -> bytes:
    if len(data) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes, more than any image")
    return data


def _reason(error: Exception) -> object:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return error.reason
    return error if str(error) else type(error).__name__
