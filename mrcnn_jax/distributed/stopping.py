"""Notes the signals that ask a run to stop: SIGTERM, and in training SIGINT (Ctrl-C).

A thread reads them from a pipe that Python's C-level handler writes to. Python's own handlers run between two
instructions of the main thread, so while it compiles for minutes a second Ctrl-C would have no effect.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_REPEAT_S = 1.0  # a terminal and a launcher may both send the signal: only a later one is another request
_MESSAGE = "stopping after this step; Ctrl-C again ends at once"
_noted: set[int] = set()  # signals that do not end the process now
_received: int | None = None
_forward: Callable[[], object] | None = None  # called with the first Ctrl-C


def note(*signals: int, forward: Callable[[], object] | None = None) -> None:
    """Notes ``signals`` from now on; a second one ends the process at once, with code 128 plus its number.

    From now on ``catching_interrupts`` notes Ctrl-C, too, and calls ``forward`` when it comes. Must be called
    in the main thread, once in a process.
    """
    global _forward
    _forward = forward or (lambda: None)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_read, args=(reader,), daemon=True, name="stop signals").start()
    for number in signals:
        _noted.add(number)
        signal.signal(number, _ignore)


@contextmanager
def catching_interrupts() -> Iterator[None]:
    """The context in which Ctrl-C is noted, too, if ``note`` has been called.

    As ever, it has no effect on a process that was started to ignore it, such as a script's background job.
    """
    before = signal.getsignal(signal.SIGINT)
    if _forward is None or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, _ignore)
    _noted.add(signal.SIGINT)
    try:
        yield
    finally:
        _noted.discard(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def received() -> int | None:
    """The first signal that was noted, if any."""
    return _received


def _ignore(*_: object) -> None:
    """Handles a signal in the main thread, where it must not raise KeyboardInterrupt."""


def _read(reader: int) -> None:
    global _received
    first = 0.0
    while True:
        for number in os.read(reader, 64):
            if number not in _noted:
                continue
            if _received is None:
                _received, first = number, time.monotonic()
                if number == signal.SIGINT:
                    with suppress(OSError):  # even if nobody reads the output any more
                        print(_MESSAGE, file=sys.stderr, flush=True)
                    if _forward is not None:
                        _forward()
            elif time.monotonic() - first > _REPEAT_S:
                os._exit(128 + number)
