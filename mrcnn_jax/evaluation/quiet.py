"""Silence for pycocotools, which prints what it does."""

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that is printed inside appears."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
